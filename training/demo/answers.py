"""The right answers to questions about a scene, in English and Chinese.

A question about several objects is answered by one kind of list: it is in the image's reading order, and each item ends with its
place, so that the next item is always the object that follows the place named last. A small model can learn that.
"""

import json
from collections.abc import Sequence

from lingbi.images.scenes import COLOURS, POSITIONS, Scene, Thing

ZH_COLOUR = dict(zip(COLOURS, "红色 绿色 蓝色 黄色 橙色 紫色 黑色 白色 灰色 粉色 棕色 青色".split(), strict=False))
ZH_SHAPE = {"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "五角星"}
ZH_POSITION = dict(zip(POSITIONS, "左上角 上边 右上角 左边 中间 右边 左下角 下边 右下角".split(), strict=False))
EN_POSITION = dict(
    zip(
        POSITIONS,
        (
            "at the top left",
            "at the top",
            "at the top right",
            "on the left",
            "in the centre",
            "on the right",
            "at the bottom left",
            "at the bottom",
            "at the bottom right",
        ),
        strict=False,
    )
)


def say(language: str, check: str, kind: str, scene: Scene, about: Sequence[Thing]) -> str:
    """The right answer to a question of a kind about the objects `about`; `check` is its name in `lingbi.images.scenes.find_fault`."""
    return say_in_english(check, kind, scene, about) if language == "en" else say_in_chinese(check, kind, scene, about)


def say_in_english(check: str, kind: str, scene: Scene, about: Sequence[Thing]) -> str:
    """The right answer in English; see `say`."""
    n = len(about)
    if check == "background":
        return f"The background is {scene.background}."
    if check == "number":
        noun = f' {"object" if n == 1 else "objects"}' if kind == "number" else ""
        return f'There {be(n)} {n or ("no" if noun else "none")}{noun}.'
    if not about:
        return "There is nothing in the picture." if kind == "describe" else "There is none."
    items = [f"{_a(thing.colour)} {thing.shape} {EN_POSITION[thing.position]}" for thing in about]
    if check == "describe":
        number = "" if n == 1 else f"{n} objects: "
        background = f" The background is {scene.background}." if kind == "detail" else ""
        return f'The picture shows {number}{", ".join(items)}.{background}'
    if n > 1:
        return f'They are {", ".join(items)}.'
    thing = about[0]
    said = dict(
        colour=thing.colour,
        shape=f"a {thing.shape}",
        position=EN_POSITION[thing.position],
        things=f"{_a(thing.colour)} {thing.shape}",
    )
    return f"It is {said[check]}."


def say_in_chinese(check: str, kind: str, scene: Scene, about: Sequence[Thing]) -> str:
    """The right answer in Chinese; see `say`."""
    return full_width(_say_in_chinese(check, kind, scene, about))


def _say_in_chinese(check: str, kind: str, scene: Scene, about: Sequence[Thing]) -> str:
    n = len(about)
    if check == "background":
        return f"背景是{ZH_COLOUR[scene.background]}。"
    if check == "number":
        return f"有{n}个。" if n else "没有。"
    if not about:
        return "图中没有物体。" if kind == "describe" else "没有。"
    names = [f"{ZH_COLOUR[thing.colour]}的{ZH_SHAPE[thing.shape]}" for thing in about]
    listed = ",".join(f"{name}在{ZH_POSITION[thing.position]}" for name, thing in zip(names, about, strict=True))
    if check == "describe":
        number = "一个" if n == 1 else f"{n}个图形:"
        background = f"背景是{ZH_COLOUR[scene.background]}。" if kind == "detail" else ""
        return f"图中有{number}{listed}。{background}"
    if n > 1:
        return f"{listed}。"
    thing = about[0]
    said = dict(
        colour=ZH_COLOUR[thing.colour],
        shape=ZH_SHAPE[thing.shape],
        position=f"在{ZH_POSITION[thing.position]}",
        things=names[0],
    )
    return f"{said[check]}。"


def as_json(language: str, about: Sequence[Thing], color: str = "colour") -> str:
    """The objects as JSON, as a bound answer writes it: {"objects": [{"colour": "red", "shape": "circle", "position": "top"}]}.

    language: of the names and the words; color: how the English name of the first property is spelt.
    """
    if language == "en":
        objects = [{color: thing.colour, "shape": thing.shape, "position": thing.position} for thing in about]
        return json.dumps({"objects": objects})
    objects = [
        {"颜色": ZH_COLOUR[thing.colour], "形状": ZH_SHAPE[thing.shape], "位置": ZH_POSITION[thing.position]}
        for thing in about
    ]
    return json.dumps({"物体": objects}, ensure_ascii=False)


def full_width(text: str) -> str:
    """The text with Chinese punctuation instead of ASCII punctuation."""
    return text.translate(str.maketrans(",?!:", "\uff0c\uff1f\uff01\uff1a"))


def be(n: int) -> str:
    """The verb for n objects."""
    return "is" if n == 1 else "are"


def _a(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words
