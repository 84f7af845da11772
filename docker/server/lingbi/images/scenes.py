"""Simple images whose contents are known, and the check that an answer about one is right.

A scene is a plain background with a few coloured shapes. The demo model is trained on such scenes. The readiness probe,
scripts/smoke and the tests draw one, ask about it, and judge the answer by its content.

>>> scene = Scene((Thing('red', 'circle'),))
>>> is_answer_right('colour', scene, 'It is red.'), is_answer_right('colour', scene, 'It is red or blue.')
(True, False)
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

COLOURS = {
    "red": (220, 20, 20),
    "green": (0, 150, 0),
    "blue": (20, 40, 220),
    "yellow": (250, 220, 0),
    "orange": (255, 140, 0),
    "purple": (128, 0, 128),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "pink": (255, 150, 190),
    "brown": (130, 75, 30),
    "cyan": (0, 220, 230),
}
COLOUR_WORDS = {
    "red": "red|红",
    "green": "green|绿",
    "blue": "blue|navy|蓝",
    "yellow": "yellow|黄",
    "orange": "orange|橙|橘",
    "purple": "purple|violet|紫",
    "black": "black|黑",
    "white": "white|白",
    "grey": "gr[ea]y|灰",
    "pink": "pink|粉",
    "brown": "brown|棕|褐",
    "cyan": "cyan|青",
}
SHAPE_WORDS = {
    "circle": "circles?|round|圆",
    "square": "squares?|正方形|方形|方块",
    "triangle": "triangles?|三角",
    "star": "stars?|五角星|星",
}
SHAPES = tuple(SHAPE_WORDS)
# The cells of the 3 x 3 grid, row by row.
POSITIONS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
ROW_WORDS = {0: "top|upper|上|顶", 2: "bottom|lower|下|底"}
COLUMN_WORDS = {0: "left|左", 2: "right|右"}
POSITION_PATTERN = (
    r"(?:(?:top|upper|bottom|lower)[ -]?(?:left|right)?|left|right|cent(?:re|er)|middle"
    r"|左上|右上|左下|右下|[左右]|上[边面]|下[边面]|[顶底]部|中间|中央|中心|正中)"
)
NUMBERS = tuple(
    "zero|no|none|nothing|没有 one|an?|一 two|两|二 three|三 four|四 five|五 six|六 seven|七 eight|八 nine|九".split()
)
# An object this near to a border of the grid, in parts of the image, may be said to be on either side of it.
TOLERANCE = 0.06


@dataclass(frozen=True)
class Thing:
    """One drawn object.

    Args:
        x, y: its centre, in parts of the image's width and height.
        size: its diameter or side, in parts of the image's shorter side.
        angle: degrees, clockwise.
        rgb: a shade of `colour`; None for the usual one.
        outline: (shade, width in parts of the size) of a border; None for none.
        is_hollow: draws the border alone, in the object's own shade, as wide as `outline` says.
        corners: corner points around (0, 0) within a circle of radius 1, in place of the shape's usual ones.
    """

    colour: str
    shape: str
    x: float = 0.5
    y: float = 0.5
    size: float = 0.5
    angle: float = 0.0
    rgb: RGB | None = None
    outline: tuple[RGB, float] | None = None
    is_hollow: bool = False
    corners: tuple[Point, ...] | None = None

    @property
    def position(self) -> str:
        """The name of its cell in the 3 x 3 grid."""
        return POSITIONS[3 * _third(self.y) + _third(self.x)]


@dataclass(frozen=True)
class Scene:
    """Objects on a plain background.

    background: the name of its colour; background_rgb: its shade, None for the usual one; width, height: pixels.
    """

    things: tuple[Thing, ...]
    background: str = "white"
    background_rgb: RGB | None = None
    width: int = 320
    height: int = 320


def _third(part: float) -> int:
    return min(2, max(0, int(part * 3)))


def star_corners(points: int = 5, inner: float = 0.4) -> tuple[Point, ...]:
    """Corners of a star with one point up; `inner` is the radius of its dents."""
    return tuple(
        (r * math.sin(a), -r * math.cos(a))
        for i in range(2 * points)
        for a, r in [(math.pi * i / points, inner if i % 2 else 1.0)]
    )


CORNERS = {
    "square": ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)),
    "triangle": ((0.0, -1.0), (0.87, 0.5), (-0.87, 0.5)),
    "star": star_corners(),
}
ROUND = tuple((math.cos(i * math.pi / 60), math.sin(i * math.pi / 60)) for i in range(120))


def outline_points(thing: Thing, width: float, height: float) -> list[Point]:
    """The corners of a thing in pixels, in an image of this size; a circle is a polygon with many corners."""
    corners = thing.corners or CORNERS.get(thing.shape, ROUND)
    radius = thing.size * min(width, height) / 2
    turn = math.radians(thing.angle)
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    x, y = thing.x * width, thing.y * height
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners]


def draw(scene: Scene, smooth: int = 3) -> Image.Image:
    """The scene as an RGB image; smooth: how many times larger it is drawn before it is reduced (1 leaves jagged edges)."""
    width, height = scene.width * smooth, scene.height * smooth
    image = Image.new("RGB", (width, height), scene.background_rgb or COLOURS[scene.background])
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        points = outline_points(thing, width, height)
        rgb = thing.rgb or COLOURS[thing.colour]
        if not thing.is_hollow:
            pen.polygon(points, fill=rgb)
        if thing.outline:
            line_rgb, part = thing.outline
            line_width = max(1, round(part * thing.size * min(width, height)))
            pen.line(points + points[:2], fill=rgb if thing.is_hollow else line_rgb, width=line_width, joint="curve")
    return image.reduce(smooth) if smooth > 1 else image


def named(words: dict[str, str], text: str) -> Counter[str]:
    """How often each name of a vocabulary occurs in a text, in English or Chinese."""
    return Counter({name: len(_find(pattern, text)) for name, pattern in words.items() if _find(pattern, text)})


def _find(pattern: str, text: str) -> list[str]:
    # English words must stand alone; Chinese ones may stand anywhere.
    return re.findall(rf"(?<![a-z])(?:{pattern})(?![a-z])", text.lower())


def named_number(text: str) -> int | None:
    """The first number in a text, or None."""
    digits = re.search(r"\d+", text)
    if digits:
        return int(digits.group())
    found = [n for n, pattern in enumerate(NUMBERS) if _find(pattern, text)]
    return found[0] if found else None


def named_positions(text: str) -> list[tuple[int, int]]:
    """The (row, column) of each position that a text names, in order."""
    found = []
    for words in _find(POSITION_PATTERN, text):
        row = next((r for r, pattern in ROW_WORDS.items() if re.search(pattern, words)), 1)
        column = next((c for c, pattern in COLUMN_WORDS.items() if re.search(pattern, words)), 1)
        found.append((row, column))
    return found


def is_at(thing: Thing, position: tuple[int, int]) -> bool:
    """Whether a thing may be said to be in this cell (row, column) of the grid."""
    return all(
        part / 3 - TOLERANCE <= at <= (part + 1) / 3 + TOLERANCE
        for part, at in zip(position, (thing.y, thing.x), strict=False)
    )


def named_things(text: str) -> list[tuple[str | None, str]]:
    """The (colour, shape) of each "red circle" or "红色的圆形" in a text, in order; a shape without a colour has None."""
    colours = "|".join(f"(?P<{name}>{words})" for name, words in COLOUR_WORDS.items())
    shapes = "|".join(f"(?P<{name}>{words})" for name, words in SHAPE_WORDS.items())
    pattern = rf"(?:(?<![a-z])(?:{colours})色?的?(?:实心|空心)?[\s-]*)?(?<![a-z])(?:{shapes})"
    found = []
    for match in re.finditer(pattern, text.lower()):
        names = {name for name, words in match.groupdict().items() if words}
        found.append((next(iter(names & set(COLOURS)), None), next(iter(names & set(SHAPES)))))
    return found


def find_fault(kind: str, scene: Scene, answer: str, about: Sequence[Thing] | None = None) -> str | None:
    """What is wrong with an answer, or None if it is right.

    Args:
        kind: what was asked: 'describe', 'things' (colour and shape), 'colour', 'shape', 'number', 'position',
            'background', 'yes' or 'no'.
        about: the objects that the question is about, by default all of the scene. If it is empty, the answer must say
            that there is none.
    """
    about = scene.things if about is None else tuple(about)
    if not answer.strip():
        return "the answer is empty"
    if kind in ("yes", "no"):
        return _fault_in_yes_no(kind, answer)
    if kind == "background":
        return _differs("background", set(named(COLOUR_WORDS, answer)), {scene.background})
    if kind == "number":
        return _differs("number", named_number(answer), len(about))
    if not about:
        return None if named_number(answer) == 0 else f"does not say that there is none: {answer!r}"
    if kind == "colour":
        return _differs("colours", set(named(COLOUR_WORDS, answer)), {thing.colour for thing in about})
    if kind == "shape":
        return _differs("shapes", set(named(SHAPE_WORDS, answer)), {thing.shape for thing in about})
    if kind == "position":
        return _fault_in_positions(about, answer)
    return _fault_in_description(kind, scene, answer, about)


def is_answer_right(kind: str, scene: Scene, answer: str, about: Sequence[Thing] | None = None) -> bool:
    """Whether an answer names everything that is there and nothing else; see `find_fault`."""
    return find_fault(kind, scene, answer, about) is None


def _differs(what: str, seen: object, expected: object) -> str | None:
    return None if seen == expected else f"{what}: the answer has {seen}, the picture {expected}"


def _fault_in_yes_no(kind: str, answer: str) -> str | None:
    is_no = bool(_find("no|not|没|不", answer))
    is_yes = not is_no and bool(_find("yes|right|correct|是|有|对", answer))
    return None if (is_yes if kind == "yes" else is_no) else f"expected {kind}, the answer is {answer!r}"


def _fault_in_positions(about: Sequence[Thing], answer: str) -> str | None:
    positions = named_positions(answer)
    orders = permutations(about) if len(positions) == len(about) else ()
    if any(all(is_at(t, p) for t, p in zip(order, positions, strict=True)) for order in orders):
        return None
    return f"positions: the answer has {positions}, the picture {[thing.position for thing in about]}"


def _fault_in_description(kind: str, scene: Scene, answer: str, about: Sequence[Thing]) -> str | None:
    answer, background = _split_background(answer)
    if background and background != {scene.background}:
        return f"background: the answer has {background}, the picture {scene.background}"
    seen = named_things(answer)
    fault = _differs("objects", Counter(seen), Counter((thing.colour, thing.shape) for thing in about))
    if fault or kind == "things":
        return fault
    if set(named(COLOUR_WORDS, answer)) != {thing.colour for thing in about}:
        return f"colours: {answer!r} names others than the objects have"
    count = re.search(r"(\d+)\s*(?:objects|shapes|个)", answer)
    if count and int(count.group(1)) != len(about):
        return f"number: the answer has {count.group(1)}, the picture {len(about)}"
    return _fault_in_places(seen, about, answer)


def _fault_in_places(seen: list[tuple[str | None, str]], about: Sequence[Thing], answer: str) -> str | None:
    """What is wrong with a description's positions: each must be that of the object that it is said of."""
    positions = named_positions(answer)
    if not positions:
        return None
    said = list(zip(seen, positions, strict=False))
    for order in permutations(about):
        if all((t.colour, t.shape) == name and is_at(t, p) for t, (name, p) in zip(order, said, strict=False)):
            return None
    return f"positions: the answer has {positions}, the picture {[thing.position for thing in about]}"


def _split_background(answer: str) -> tuple[str, set[str]]:
    """The answer without its words about the background, and the colours that those name."""
    pattern = r"(?:[,.]? (?:on|against) (?:an?|the) [a-z ]*background|(?:the )?background is [a-z ]*|[,\uff0c]?背景[是为][^,\uff0c。]*)"
    found = re.findall(pattern, answer, flags=re.IGNORECASE)
    return re.sub(pattern, "", answer, flags=re.IGNORECASE), set(named(COLOUR_WORDS, " ".join(found)))
