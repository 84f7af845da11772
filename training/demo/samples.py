"""Training samples: images with their labels, drawn by worker processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lingbi.images.scenes import COLOURS, POSITIONS, SHAPES, Scene, Thing

from .conversations import KINDS, OFTEN, Turn, conversation, talk_without_picture
from .pictures import FINE_GRID, GRID, MAX_THINGS, Pixels, View, random_scene, views_of
from .template import BOS, IGNORED, TEMPLATE, Encode, encode_conversation

Classes = NDArray[np.int8]
Question = tuple[int, ...]  # one number for each of QUESTION_CLASSES
TextFields = tuple[list[int], list[int], list[int], list[Question]]  # as in Text

PICTURE_TOKENS = GRID * GRID
COLOUR_NAMES, SHAPE_NAMES = list(COLOURS), list(SHAPES)
# How many things a full scene holds. Each of them teaches the tower as much as an image of its own would.
FULL = (4, MAX_THINGS)
# What an image token is taught to say: nothing, a colour, a shape, a place, or a number.
SAYINGS = ["", *COLOURS, *SHAPES, *POSITIONS, *range(MAX_THINGS + 1)]
# The classes that an image token is taught: what it says, and about which object, by its colour, shape and place, and by the
# place after which the answers list it (1: it is the first). 0 is "none" everywhere.
CLASSES = dict(
    say=len(SAYINGS),
    colour=len(COLOURS) + 1,
    shape=len(SHAPES) + 1,
    position=len(POSITIONS) + 1,
    before=len(POSITIONS) + 2,
)
LOCAL_CLASSES = ("colour", "shape", "position")
# What the model must understand of a question: its kind, and what colour, shape and place it names. 0 is "none".
QUESTION_KINDS = [*KINDS, "no picture"]
QUESTION_CLASSES = dict(
    kind=len(QUESTION_KINDS), colour=len(COLOURS) + 1, shape=len(SHAPES) + 1, position=len(POSITIONS) + 1
)
# What takes longest to learn is taught more often than people ask it: to find the object that a question names, or none, and
# to compare what is there with what the question names.
TAUGHT = OFTEN | dict(
    describe=16,
    colour=10,
    shape=10,
    position=9,
    number=9,
    background=8,
    talk=4,
    number_of=10,
    colour_of=14,
    shape_of=13,
    position_of=13,
    at=8,
    colour_at=5,
    shape_at=4,
    is_there=10,
    is_colour=8,
    is_shape=12,
    is_number=9,
    json=24,
)
# How many turns a conversation about an image has.
TURNS = (3, 4, 5, 6)
# Questions are asked in series, so that the model learns to tell the last from those before it; one scene serves several.
QUESTIONS_IN_SERIES, SERIES_PER_SCENE = 8, 4
OTHER_SYSTEMS = (
    "You are a helpful assistant.",
    "你是一个有用的助手。",
    "Answer briefly.",
    "You describe pictures.",
    "请用简短的话回答。",
)


@dataclass
class Text:
    """A conversation as token ids.

    labels: the next tokens to learn, IGNORED elsewhere; turns: for each token, the turn whose answer it belongs to, or -1;
    questions: for each turn, its QUESTION_CLASSES.
    """

    ids: list[int]
    labels: list[int]
    turns: list[int]
    questions: list[Question]


@dataclass
class Sample(Text):
    """One image, the classes of its cells, and a conversation about it.

    pixels: uint8 [192, 192, 3]; classes: int [36, number of CLASSES], of the image tokens; middle_classes and fine_classes: int
    [36 and 144, number of LOCAL_CLASSES], what covers the tower's patches and the stem's cells; fine_cover: int [144], which thing
    does, 0 for none, else 1 + its index; thing_classes: int [6, number of LOCAL_CLASSES], of the things themselves, 0 for none.
    """

    pixels: Pixels
    classes: Classes
    middle_classes: Classes
    fine_classes: Classes
    fine_cover: Classes
    thing_classes: Classes


def cell_classes(view: View, grid: int) -> Classes:
    """What covers each cell of a grid: int8 [grid * grid, number of LOCAL_CLASSES]."""
    return np.concatenate((np.zeros((1, len(LOCAL_CLASSES)), np.int8), thing_classes(view)))[view.covers[grid].ravel()]


def thing_classes(view: View) -> Classes:
    """What each thing is: int8 [6, number of LOCAL_CLASSES], zeros where there are fewer things."""
    classes = np.zeros((MAX_THINGS, len(LOCAL_CLASSES)), np.int8)
    for row, thing in zip(classes, view.scene.things, strict=False):
        row[:] = _local(thing)
    return classes


def _local(thing: Thing) -> tuple[int, int, int]:
    return (
        COLOUR_NAMES.index(thing.colour) + 1,
        SHAPE_NAMES.index(thing.shape) + 1,
        POSITIONS.index(thing.position) + 1,
    )


def token_classes(view: View) -> Classes:
    """What each image token is taught: int8 [36, number of CLASSES], -1 where the class is unknown.

    Four tokens stand for each cell of the 3 x 3 grid. Three of them describe the object whose centre is in the cell, else one that
    covers the token, else the background: one says the colour, one the shape, one the place. The fourth gives a number.
    """
    scene = view.scene
    nothing = (SAYINGS.index(scene.background) if scene.background else -1,) * 3, (0, 0, 0, 0)
    facts: list[tuple[tuple[int, ...], tuple[int, ...]]] = [nothing]
    before = 1
    for thing in scene.things:
        colour, shape, position = _local(thing)
        sayings = tuple(SAYINGS.index(name) for name in (thing.colour, thing.shape, thing.position))
        facts.append((sayings, (colour, shape, position, before)))
        before = position + 1
    centred = {thing.position: i + 1 for i, thing in reversed(list(enumerate(scene.things)))}
    covered = view.covers[GRID]
    classes = np.zeros((GRID, GRID, len(CLASSES)), np.int8)
    for row, column in np.ndindex(GRID, GRID):
        sayings, keys = facts[centred.get(POSITIONS[row // 2 * 3 + column // 2], covered[row, column])]
        classes[row, column] = (*sayings, 0)[row % 2 * 2 + column % 2], *keys
    classes[1::2, 1::2] = 0
    classes[1::2, 1::2, 0] = np.reshape(_numbers(scene), (3, 3))
    return classes.reshape(GRID * GRID, len(CLASSES))


def _numbers(scene: Scene) -> NDArray[np.int_]:
    """What nine tokens say: the number of each shape in the corners, and the number of all objects five times."""
    circles, squares, triangles, stars = (sum(thing.shape == shape for thing in scene.things) for shape in SHAPE_NAMES)
    n = len(scene.things)
    return np.array([circles, n, squares, n, n, n, triangles, n, stars]) + SAYINGS.index(0)


def make_sample(rng: Random, encode: Encode, view: View) -> Sample:
    """A sample with a conversation about a view, which sometimes begins with small talk."""
    turns = conversation(rng, view.scene, rng.choice(TURNS), TAUGHT)
    before = talk_without_picture(rng, 1) if rng.random() < 0.1 else []
    template = TEMPLATE
    if rng.random() < 0.04:
        template = type(TEMPLATE)(meta_instruction=rng.choice(OTHER_SYSTEMS))
    turns, picture_turn = before + turns, len(before)
    if rng.random() < 0.02:
        turns, picture_turn, template = talk_without_picture(rng, 3), -1, TEMPLATE
    pairs = [(turn.question, turn.answer) for turn in turns]
    return silent_sample(view, *_text(encode, turns, pairs, picture_turn, template))


def _text(
    encode: Encode,
    turns: list[Turn],
    pairs: Sequence[tuple[str, str]],
    picture_turn: int = -1,
    template: Any = TEMPLATE,
) -> TextFields:
    """The fields of Text for these question and answer pairs of the turns."""
    ids, labels, places = encode_conversation(encode, pairs, PICTURE_TOKENS, picture_turn, template=template)
    return [BOS] + ids, [IGNORED] + labels, [-1] + places, [question_classes(turn) for turn in turns]


def questions_of(seed: int | str, encode: Encode, n: int) -> list[Text]:
    """n texts of questions whose answers are left empty, about scenes that are not drawn; the same for the same seed."""
    rng = Random(seed)
    texts: list[Text] = []
    while len(texts) < n:
        scene = random_scene(rng)
        for _ in range(SERIES_PER_SCENE):
            turns = conversation(rng, scene, QUESTIONS_IN_SERIES, TAUGHT)
            texts.append(Text(*_text(encode, turns, [(turn.question, "") for turn in turns])))
    return texts[:n]


def question_classes(turn: Turn) -> Question:
    """What the model must understand of a question, one number for each of QUESTION_CLASSES."""
    named = zip(turn.asked, (COLOUR_NAMES, SHAPE_NAMES, POSITIONS), strict=True)
    return QUESTION_KINDS.index(turn.kind), *(0 if name is None else names.index(name) + 1 for name, names in named)


def silent_sample(
    view: View,
    ids: Iterable[int] = (),
    labels: Iterable[int] = (),
    turns: Iterable[int] = (),
    questions: Iterable[Question] = (),
) -> Sample:
    """A sample that teaches the tower about a view."""
    classes = token_classes(view), cell_classes(view, GRID), cell_classes(view, FINE_GRID)
    things = view.covers[FINE_GRID].ravel().astype(np.int8), thing_classes(view)
    return Sample(list(ids), list(labels), list(turns), list(questions), view.pixels, *classes, *things)


def samples_of(seed: int | str, encode: Encode, n: int, ease: float = 0.0, fullness: float = 0.0) -> list[Sample]:
    """n samples: the share `fullness` has full scenes, and `ease` is the share of easy ones among the rest; seed decides all."""
    rng = Random(seed)
    return [make_sample(rng, encode, view) for view in _views(rng, n, ease, fullness)]


def silent_samples_of(seed: int | str, n: int, ease: float, fullness: float) -> list[Sample]:
    """Like `samples_of`, but without conversations."""
    return [silent_sample(view) for view in _views(Random(seed), n, ease, fullness)]


def _views(rng: Random, n: int, ease: float, fullness: float) -> list[View]:
    """n views, in random order, of one drawing for each VIEWS of them."""
    views: list[View] = []
    while len(views) < n:
        if rng.random() < fullness:
            scene = random_scene(rng, rng.randint(*FULL))
        else:
            scene = random_scene(rng, is_easy=rng.random() < ease)
        views += views_of(rng, scene)
    rng.shuffle(views)
    return views[:n]
