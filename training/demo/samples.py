"""Training samples: pictures with what is to be learnt about them, drawn by worker processes."""

import random
from dataclasses import dataclass

import numpy as np

from lingbi.scenes import COLOURS, POSITIONS, SHAPES

from .conversations import conversation, talk_without_picture
from .pictures import FINE_GRID, GRID, covering, picture_of, random_scene
from .template import BOS, IGNORED, TEMPLATE, encode_conversation

PICTURE_TOKENS = GRID * GRID
COLOUR_NAMES, SHAPE_NAMES = list(COLOURS), list(SHAPES)
MAX_SAME_COLOUR = 3
# classes of each thing that a picture token is taught to tell: what covers it, and what the picture holds in all
CLASSES = dict(
    colour=13,
    shape=5,
    rank=7,
    position=10,
    count=7,
    background=13,
    **{f"n_{shape}": 7 for shape in SHAPES},
    **{f"n_{colour}": 4 for colour in COLOURS},
)
OTHER_SYSTEMS = (
    "You are a helpful assistant.",
    "你是一个有用的助手。",
    "Answer briefly.",
    "You describe pictures.",
    "请用简短的话回答。",
)


@dataclass
class Sample:
    """One picture, what its cells are taught, and a conversation about it.

    pixels: uint8 [192, 192, 3]; classes: int [36, number of CLASSES], of the picture tokens;
    fine_classes: int [144, number of LOCAL_CLASSES], of the stem's cells.
    """

    pixels: np.ndarray
    classes: np.ndarray
    fine_classes: np.ndarray
    ids: list
    labels: list


LOCAL_CLASSES = ("colour", "shape", "rank", "position")


def cell_classes(scene, grid):
    """What covers each cell of a grid: int8 [grid * grid, number of LOCAL_CLASSES]."""
    things = [
        (COLOUR_NAMES.index(t.colour) + 1, SHAPE_NAMES.index(t.shape) + 1, i + 1, POSITIONS.index(t.position) + 1)
        for i, t in enumerate(scene.things)
    ]
    return np.array([(0, 0, 0, 0)] + things, np.int8)[covering(scene, grid)]


def token_classes(scene):
    """What each picture token is taught: int8 [36, number of CLASSES], -1 where nobody knows."""
    local = cell_classes(scene, GRID)
    background = COLOUR_NAMES.index(scene.background) + 1 if scene.background else -1
    whole = [len(scene.things), background]
    whole += [sum(t.shape == shape for t in scene.things) for shape in SHAPE_NAMES]
    whole += [min(MAX_SAME_COLOUR, sum(t.colour == colour for t in scene.things)) for colour in COLOUR_NAMES]
    return np.concatenate([local, np.tile(whole, (len(local), 1))], 1).astype(np.int8)


def make_sample(rng, encode, ease=0.0):
    """A fresh scene (an easy one with probability `ease`), its picture and a conversation, sometimes begun by small talk."""
    scene = random_scene(rng, is_easy=rng.random() < ease)
    turns = conversation(rng, scene, rng.choice([3, 4, 5, 6]))
    before = talk_without_picture(rng, 1) if rng.random() < 0.1 else []
    template = TEMPLATE
    if rng.random() < 0.04:
        template = type(TEMPLATE)(meta_instruction=rng.choice(OTHER_SYSTEMS))
    pairs = [(turn.question, turn.answer) for turn in before + turns]
    ids, labels = encode_conversation(encode, pairs, PICTURE_TOKENS, picture_turn=len(before), template=template)
    if rng.random() < 0.02:
        pairs = [(turn.question, turn.answer) for turn in talk_without_picture(rng, 3)]
        ids, labels = encode_conversation(encode, pairs, PICTURE_TOKENS, picture_turn=-1)
    return Sample(
        picture_of(rng, scene), token_classes(scene), cell_classes(scene, FINE_GRID), [BOS] + ids, [IGNORED] + labels
    )


def samples_of(seed, encode, n, ease=0.0):
    """n samples; always the same ones for the same seed."""
    rng = random.Random(seed)
    return [make_sample(rng, encode, ease) for _ in range(n)]


def silent_samples_of(seed, n, ease):
    """n samples without conversations, the part `ease` of them of easy scenes."""
    rng = random.Random(seed)
    scenes = [random_scene(rng, is_easy=rng.random() < ease) for _ in range(n)]
    return [
        Sample(picture_of(rng, scene), token_classes(scene), cell_classes(scene, FINE_GRID), [], []) for scene in scenes
    ]
