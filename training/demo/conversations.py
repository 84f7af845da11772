"""Questions about a scene with their right answers, and conversations made of them."""

from dataclasses import dataclass

from lingbi.images.scenes import COLOURS, POSITIONS, SHAPES, Thing

from . import chinese, english
from .answers import ZH_COLOUR, ZH_SHAPE, be, full_width, say
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
}
OFTEN = {kind: weight for kind, (weight, _) in KINDS.items()}
NOTHING = (None, None, None)
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
    asked: tuple = NOTHING


def random_turn(rng, scene, language=None, kind=None, often=OFTEN):
    """A question about a scene. Its kind is drawn, with the weights in `often`, from those that the scene allows."""
    language = language or rng.choice(["en", "zh"])
    while True:
        chosen = kind or rng.choices(list(often), often.values())[0]
        turn = _turn(rng, scene, language, chosen)
        if turn or kind:
            return turn


def conversation(rng, scene, n_turns, often=OFTEN):
    """Turns about one scene, four in five conversations in one language; often: as in `random_turn`."""
    language = rng.choice(["en", "zh"])
    is_mixed = rng.random() < 0.2
    return [random_turn(rng, scene, None if is_mixed else language, often=often) for _ in range(n_turns)]


def talk_without_picture(rng, n_turns):
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


def _turn(rng, scene, language, kind):
    things = scene.things
    if kind == "talk":
        return _talk(rng, language)
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


def _made(rng, scene, language, kind, fill, about, asked=NOTHING):
    question = _polish(rng, _ask(rng, language, kind, fill), language)
    check = KINDS[kind][1]
    return Turn(kind, language, question, say(language, check, kind, scene, about), check, tuple(about), asked)


def _asked_by_looks(rng, scene, language, kind):
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


def _looks(rng, language, colour, shape):
    """Fills for {what}, {what_s} and {colour}."""
    if language == "en":
        noun = rng.choice(EN_SHAPE_ASKED[shape]) if shape else rng.choice(["object", "one", "thing", "shape", "figure"])
        word = {"grey": rng.choice(["grey", "gray"])}.get(colour, colour or "")
        what = f"{word} {noun}".strip()
        return dict(what=what, what_s=what.replace("box", "boxe") + "s", colour=word)
    noun = rng.choice(ZH_SHAPE_ASKED[shape]) if shape else rng.choice(["物体", "图形", "东西", "那个"])
    word = rng.choice(ZH_COLOUR_ASKED[colour]) if colour else ""
    what = f'{word}{rng.choice(["的", "的", ""])}{noun}' if word else noun
    return dict(what=what, what_s=what, colour=word)


def _asked_by_place(rng, scene, language, kind):
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


def is_in(thing, place):
    """Whether a thing is at the place that a question names: 'left' is the whole left column, 'centre' the one cell."""
    if place in ("top", "bottom", "left", "right"):
        return place in thing.position.split(" ")
    return thing.position == place


def _yes_or_no(rng, scene, language, kind):
    truth = rng.random() < 0.5
    things, is_english = scene.things, language == "en"
    if kind == "is_number":
        n = len(things) if truth else rng.choice([i for i in range(1, 7) if i != len(things)])
        fill = (
            dict(
                n=rng.choice(
                    [str(n), "one two three four five six".split()[n - 1] if is_english else "一两三四五六"[n - 1]]
                )
            )
            if n
            else None
        )
        answer = _confirm(
            language,
            truth,
            f'there {be(len(things))} {len(things) or "none"}',
            f"有{len(things)}个" if things else "没有",
        )
        return fill and _yes_no_turn(rng, language, kind, fill, answer, truth)
    if kind == "is_there":
        return _is_there(rng, scene, language, truth)
    if len(things) != 1:
        return None
    names, seen = (COLOURS, things[0].colour) if kind == "is_colour" else (SHAPES, things[0].shape)
    asked = seen if truth else rng.choice([name for name in names if name != seen])
    fill = (
        _looks(rng, language, asked, None)
        if kind == "is_colour"
        else dict(shape=rng.choice((EN_SHAPE_ASKED if is_english else ZH_SHAPE_ASKED)[asked]))
    )
    if kind == "is_colour":
        answer = _confirm(language, truth, f"it is {seen}", f"是{ZH_COLOUR[seen]}")
    else:
        answer = _confirm(language, truth, f"it is a {seen}", f"是{ZH_SHAPE[seen]}")
    named = (asked, None, None) if kind == "is_colour" else (None, asked, None)
    return _yes_no_turn(rng, language, kind, fill, answer, truth, named)


def _is_there(rng, scene, language, truth):
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


def _yes_no_turn(rng, language, kind, fill, answer, truth, asked=NOTHING):
    question = _polish(rng, _ask(rng, language, kind, fill), language)
    return Turn(kind, language, question, answer, "yes" if truth else "no", None, asked)


def _confirm(language, truth, english, chinese):
    if language == "en":
        return f'{"Yes" if truth else "No"}, {english}.'
    return full_width(f'{"是的" if truth else "不是"},{chinese}。')


def _talk(rng, language):
    asked, answer = rng.choice(PHRASES[language].TALK)
    question = _polish(rng, rng.choice(asked.split("|")), language, chatter=0.1)
    return Turn("talk", language, question, full_width(answer) if language == "zh" else answer, "talk")


def _ask(rng, language, kind, fill):
    phrases = PHRASES[language]
    template = expand(rng, rng.choice(phrases.QUESTIONS[kind]))
    return template.format(**{key: rng.choice(words) for key, words in phrases.FILLS.items()}, **fill)


def _polish(rng, text, language, chatter=0.3):
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


def _fill(rng, text, language):
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


def _slip(rng, text):
    """One letter dropped, doubled or swapped with the next."""
    i = rng.randrange(max(1, len(text) - 1))
    return text[:i] + rng.choice(
        [text[i + 1 :], text[i : i + 1] * 2 + text[i + 1 :], text[i : i + 2][::-1] + text[i + 2 :]]
    )
