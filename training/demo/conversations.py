"""Questions about a scene with their right answers, and conversations made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lingbi.images.scenes import COLOURS, POSITIONS, SHAPES, Scene, Thing

from . import chinese, english
from .answers import ZH_COLOUR, ZH_SHAPE, as_json, be, full_width, say
from .phrases import expand

PHRASES = {"en": english, "zh": chinese}
EN_SHAPE_ASKED = {
    "circle": ["circle"] * 4 + ["round shape", "disc", "ball"],
    "square": ["square"] * 4 + ["box", "rectangle"],
    "triangle": ["triangle"],
    "star": ["star"],
}
ZH_SHAPE_ASKED = {
    "circle": ["圆形", "圆形", "圆", "圆圈", "圆球"],
    "square": ["正方形", "正方形", "方形", "方块", "四边形"],
    "triangle": ["三角形", "三角形", "三角"],
    "star": ["五角星", "星形", "星星", "星"],
}
ZH_COLOUR_ASKED = {name: [zh, zh, zh[0] + "色"] for name, zh in ZH_COLOUR.items()}
# kind of question: (how often, the checker's name for it)
KINDS = {
    "describe": (24, "describe"),
    "detail": (4, "describe"),
    "both": (6, "things"),
    "colour": (15, "colour"),
    "shape": (14, "shape"),
    "position": (11, "position"),
    "number": (12, "number"),
    "background": (10, "background"),
    "number_of": (7, "number"),
    "colour_of": (10, "colour"),
    "shape_of": (8, "shape"),
    "position_of": (8, "position"),
    "at": (6, "things"),
    "colour_at": (3, "colour"),
    "shape_at": (2, "shape"),
    "is_there": (5, "yes"),
    "is_colour": (3, "yes"),
    "is_shape": (3, "yes"),
    "is_number": (2, "yes"),
    "talk": (5, "talk"),
    "json": (0, "json"),  # taught (`samples.TAUGHT`) and scored by itself: the other questions of a score stay the same
}
OFTEN = {kind: weight for kind, (weight, _) in KINDS.items()}
Fill = dict[str, str]  # the words that replace {what} and the like in a template
Asked = tuple[str | None, str | None, str | None]
NOTHING: Asked = (None, None, None)
# an object nearer than this to a border of the grid is not asked for by its place
CLEAR = 0.03


@dataclass(frozen=True)
class Turn:
    """A question and its right answer.

    check, about: what `lingbi.images.scenes.find_fault` takes to judge another answer; asked: the colour, the shape and the
    place that the question names, each None where it names none.
    """

    kind: str
    language: str
    question: str
    answer: str
    check: str
    about: tuple[Thing, ...] | None = None
    asked: Asked = NOTHING


def random_turn(rng: Random, scene: Scene, language: str | None = None, often: dict[str, int] = OFTEN) -> Turn:
    """A question about a scene. Its kind is drawn, with the weights in `often`, from those that the scene allows."""
    language = language or rng.choice(["en", "zh"])
    while True:
        turn = turn_of_kind(rng, scene, language, rng.choices(list(often), list(often.values()))[0])
        if turn:
            return turn


def conversation(rng: Random, scene: Scene, n_turns: int, often: dict[str, int] = OFTEN) -> list[Turn]:
    """Turns about one scene, four in five conversations in one language; often: as in `random_turn`."""
    language = rng.choice(["en", "zh"])
    is_mixed = rng.random() < 0.2
    return [random_turn(rng, scene, None if is_mixed else language, often) for _ in range(n_turns)]


def talk_without_picture(rng: Random, n_turns: int) -> list[Turn]:
    """Turns before any image has been sent: small talk, or questions that need an image."""
    language, turns = rng.choice(["en", "zh"]), []
    for _ in range(n_turns):
        turn = _talk(rng, language)
        if rng.random() < 0.5:
            kind = rng.choice(["describe", "colour", "shape", "number", "position", "background", "both"])
            question = _polish(rng, _ask(rng, language, kind, {}), language)
            turn = Turn("no picture", language, question, PHRASES[language].NO_PICTURE, "talk")
        turns.append(turn)
    return turns


def turn_of_kind(rng: Random, scene: Scene, language: str, kind: str) -> Turn | None:
    """A question of this kind about a scene; None where the scene allows none."""
    things = scene.things
    if kind == "talk":
        return _talk(rng, language)
    if kind == "json":
        return _as_json(rng, scene, language)
    if kind in ("background", "detail") and not scene.background:
        return None
    if kind in ("describe", "detail", "both", "colour", "shape", "position", "number", "background"):
        if not things and kind not in ("describe", "number", "background"):
            return None
        return _made(rng, scene, language, kind, {}, things)
    if kind.startswith("is_"):
        return _yes_or_no(rng, scene, language, kind)
    if kind in ("at", "colour_at", "shape_at"):
        return _asked_by_place(rng, scene, language, kind)
    return _asked_by_looks(rng, scene, language, kind)


def _made(
    rng: Random, scene: Scene, language: str, kind: str, fill: Fill, about: Sequence[Thing], asked: Asked = NOTHING
) -> Turn:
    question = _polish(rng, _ask(rng, language, kind, fill), language)
    check = KINDS[kind][1]
    return Turn(kind, language, question, say(language, check, kind, scene, about), check, tuple(about), asked)


def _as_json(rng: Random, scene: Scene, language: str) -> Turn:
    """Asks for the objects as JSON; one Chinese question in three asks for English JSON, since schemas are often English."""
    in_english = language == "en" or rng.random() < 1 / 3
    asked = _ask(rng, language, "json" if language == "en" or not in_english else "english_json", {})
    color = "color" if "color" in asked else "colour"
    answer = as_json("en" if in_english else "zh", scene.things, color)
    return Turn("json", language, _polish(rng, asked, language), answer, "json", scene.things)


def _asked_by_looks(rng: Random, scene: Scene, language: str, kind: str) -> Turn | None:
    """Asks for the objects of a colour, of a shape or of both; one time in eight for objects that are not there.

    If several objects match, the question only asks how many.
    """
    by_colour = kind == "shape_of" or (kind != "colour_of" and rng.random() < 0.5)
    by_shape = kind == "colour_of" or not by_colour or (kind in ("number_of", "position_of") and rng.random() < 0.35)
    model = (
        rng.choice(scene.things)
        if scene.things and rng.random() < 0.88
        else Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES))
    )
    about = [
        t
        for t in scene.things
        if (not by_colour or t.colour == model.colour) and (not by_shape or t.shape == model.shape)
    ]
    looks = (model.colour if by_colour else None, model.shape if by_shape else None)
    fill = _looks(rng, language, *looks)
    if len(about) > 1 and kind != "number_of":
        return None
    return _made(rng, scene, language, kind, fill, about, (*looks, None))


def _looks(rng: Random, language: str, colour: str | None, shape: str | None) -> Fill:
    """Fills for {what}, {what_s} and {colour}."""
    if language == "en":
        noun = rng.choice(EN_SHAPE_ASKED[shape]) if shape else rng.choice(["object", "one", "thing", "shape", "figure"])
        grey = rng.choice(["grey", "gray"])
        word = grey if colour == "grey" else colour or ""
        what = f"{word} {noun}".strip()
        return dict(what=what, what_s=what.replace("box", "boxe") + "s", colour=word)
    noun = rng.choice(ZH_SHAPE_ASKED[shape]) if shape else rng.choice(["物体", "图形", "东西", "那个"])
    word = rng.choice(ZH_COLOUR_ASKED[colour]) if colour else ""
    what = f'{word}{rng.choice(["的", "的", ""])}{noun}' if word else noun
    return dict(what=what, what_s=what, colour=word)


def _asked_by_place(rng: Random, scene: Scene, language: str, kind: str) -> Turn | None:
    """Asks what is at a place: a corner, the centre, or a whole side of the picture."""
    if any(abs(at - border) < CLEAR for t in scene.things for at in (t.x, t.y) for border in (1 / 3, 2 / 3)):
        return None
    place = rng.choice(scene.things).position if scene.things and rng.random() < 0.85 else rng.choice(POSITIONS)
    if place.count(" ") and rng.random() < 0.4:
        place = rng.choice(place.split(" "))
    about = [t for t in scene.things if is_in(t, place)]
    if len(about) > 1 or (kind != "at" and not about):
        return None
    at = expand(rng, rng.choice(PHRASES[language].AT[place]))
    return _made(rng, scene, language, kind, dict(at=at), about, (None, None, place))


def is_in(thing: Thing, place: str) -> bool:
    """Whether a thing is at the place that a question names: 'left' is the whole left column, 'centre' the one cell."""
    if place in ("top", "bottom", "left", "right"):
        return place in thing.position.split(" ")
    return thing.position == place


def _yes_or_no(rng: Random, scene: Scene, language: str, kind: str) -> Turn | None:
    truth = rng.random() < 0.5
    if kind == "is_number":
        return _is_number(rng, len(scene.things), language, truth)
    if kind == "is_there":
        return _is_there(rng, scene, language)
    if len(scene.things) != 1:
        return None
    return (_is_colour if kind == "is_colour" else _is_shape)(rng, scene.things[0], language, truth)


def _is_number(rng: Random, seen: int, language: str, truth: bool) -> Turn | None:
    n = seen if truth else rng.choice([i for i in range(1, 7) if i != seen])
    if not n:
        return None
    word = "one two three four five six".split()[n - 1] if language == "en" else "一两三四五六"[n - 1]
    fill = dict(n=rng.choice([str(n), word]))
    answer = _confirm(language, truth, f'there {be(seen)} {seen or "none"}', f"有{seen}个" if seen else "没有")
    return _yes_no_turn(rng, language, "is_number", fill, answer, truth)


def _is_colour(rng: Random, thing: Thing, language: str, truth: bool) -> Turn:
    seen = thing.colour
    asked = seen if truth else rng.choice([name for name in COLOURS if name != seen])
    fill = _looks(rng, language, asked, None)
    answer = _confirm(language, truth, f"it is {seen}", f"是{ZH_COLOUR[seen]}")
    return _yes_no_turn(rng, language, "is_colour", fill, answer, truth, (asked, None, None))


def _is_shape(rng: Random, thing: Thing, language: str, truth: bool) -> Turn:
    seen = thing.shape
    asked = seen if truth else rng.choice([name for name in SHAPES if name != seen])
    fill = dict(shape=rng.choice((EN_SHAPE_ASKED if language == "en" else ZH_SHAPE_ASKED)[asked]))
    answer = _confirm(language, truth, f"it is a {seen}", f"是{ZH_SHAPE[seen]}")
    return _yes_no_turn(rng, language, "is_shape", fill, answer, truth, (None, asked, None))


def _is_there(rng: Random, scene: Scene, language: str) -> Turn:
    colour = rng.random() < 0.55
    shape = not colour or rng.random() < 0.5
    model = (
        rng.choice(scene.things)
        if scene.things and rng.random() < 0.5
        else Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES))
    )
    truth = any(
        (not colour or t.colour == model.colour) and (not shape or t.shape == model.shape) for t in scene.things
    )
    looks = (model.colour if colour else None, model.shape if shape else None)
    fill = _looks(rng, language, *looks)
    answer = {"en": ("No, there is not.", "Yes, there is."), "zh": ("没有。", "有。")}[language][truth]
    return _yes_no_turn(rng, language, "is_there", fill, answer, truth, (*looks, None))


def _yes_no_turn(
    rng: Random, language: str, kind: str, fill: Fill, answer: str, truth: bool, asked: Asked = NOTHING
) -> Turn:
    question = _polish(rng, _ask(rng, language, kind, fill), language)
    return Turn(kind, language, question, answer, "yes" if truth else "no", None, asked)


def _confirm(language: str, truth: bool, english: str, chinese: str) -> str:
    if language == "en":
        return f'{"Yes" if truth else "No"}, {english}.'
    return full_width(f'{"是的" if truth else "不是"},{chinese}。')


def _talk(rng: Random, language: str) -> Turn:
    asked, answer = rng.choice(PHRASES[language].TALK)
    question = _polish(rng, rng.choice(asked.split("|")), language, chatter=0.1)
    return Turn("talk", language, question, full_width(answer) if language == "zh" else answer, "talk")


def _ask(rng: Random, language: str, kind: str, fill: Fill) -> str:
    phrases = PHRASES[language]
    template = expand(rng, rng.choice(phrases.QUESTIONS[kind]))
    return template.format(**{key: rng.choice(words) for key, words in phrases.FILLS.items()}, **fill)


def _polish(rng: Random, text: str, language: str, chatter: float = 0.3) -> str:
    """Adds greetings, politeness, filler words, punctuation, capitals and typing errors."""
    if rng.random() < chatter * 0.6:
        text = _fill(rng, text, language)
    if rng.random() < chatter:
        text = rng.choice(PHRASES[language].PREFIXES) + text
    if rng.random() < chatter * 0.6:
        text += rng.choice(PHRASES[language].SUFFIXES)
    if language == "en":
        text = text.replace("  ", " ")
        if rng.random() < 0.65:
            text = text[:1].upper() + text[1:]
        text = text.replace(" i ", " I ") if rng.random() < 0.8 else text
        end = rng.choice(["?", "?", "?", ".", "", "", "!", " ?", "??"])
    else:
        end = rng.choice(["?", "?", "。", "", "", "!", "呢?", "吗?" if "是" in text[:3] else "?", "??"])
        end = full_width(end) if rng.random() < 0.7 else end
        text = full_width(text) if rng.random() < 0.7 else text
    if rng.random() < 0.03:
        text = _slip(rng, text)
    return text + end


def _fill(rng: Random, text: str, language: str) -> str:
    """Inserts one or two meaningless words into a question, so that the model has to understand the others."""
    for _ in range(rng.choice([1, 1, 2])):
        if language == "en":
            words = text.split(" ")
            words.insert(rng.randrange(len(words) + 1), rng.choice(PHRASES[language].FILLERS))
            text = " ".join(words)
        else:
            i = rng.choice([0, len(text), rng.randrange(len(text) + 1)])
            text = text[:i] + rng.choice(PHRASES[language].FILLERS) + text[i:]
    return text


def _slip(rng: Random, text: str) -> str:
    """One letter dropped, doubled or swapped with the next."""
    i = rng.randrange(max(1, len(text) - 1))
    return text[:i] + rng.choice(
        [text[i + 1 :], text[i : i + 1] * 2 + text[i + 1 :], text[i : i + 2][::-1] + text[i + 2 :]]
    )
