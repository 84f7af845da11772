"""Random scenes to train on, and their images as the model gets them: drawn, perhaps compressed, and resized."""

import colorsys
import io
import itertools
import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from lingbi.images.scenes import POSITIONS, RGB, SHAPES, Point, Scene, Thing, draw, outline_points, star_corners

Bounds = tuple[float, float]
Background = tuple[str, RGB]  # its name, or '', and its shade
Place = tuple[float, float, float]  # x, y and the size
Pixels = NDArray[np.uint8]
Cover = NDArray[np.int_]

# shades of a colour: ranges of hue in degrees, saturation and value; one range is chosen each time
SHADES: dict[str, list[tuple[Bounds, Bounds, Bounds]]] = {
    "red": [((-12, 6), (0.8, 1), (0.55, 1)), ((-6, 5), (0.65, 1), (0.8, 1))],
    "orange": [((22, 40), (0.8, 1), (0.9, 1))],
    "yellow": [((48, 62), (0.6, 1), (0.86, 1))],
    "green": [((95, 147), (0.5, 1), (0.3, 1)), ((100, 140), (0.35, 0.6), (0.75, 1)), ((118, 122), (0.9, 1), (0.45, 1))],
    "blue": [
        ((205, 248), (0.6, 1), (0.42, 1)),
        ((196, 230), (0.42, 0.7), (0.85, 1)),
        ((236, 244), (0.9, 1), (0.45, 1)),
    ],
    "purple": [((264, 302), (0.5, 1), (0.38, 0.92)), ((270, 300), (0.4, 0.6), (0.8, 0.95))],
    "black": [((0, 360), (0, 0.3), (0, 0.11))],
    "white": [((0, 360), (0, 0.02), (0.97, 1))],
    "grey": [((0, 360), (0, 0.05), (0.24, 0.865))],
    "pink": [((325, 351), (0.25, 0.6), (0.92, 1))],
    "brown": [((17, 31), (0.55, 0.9), (0.32, 0.6))],
    "cyan": [((174, 188), (0.7, 1), (0.78, 1))],
}
EXTRA_COLOURS = ("pink", "brown", "cyan")
# Shades that people name or type when they draw with a script.
TYPED = {
    "red": ["#ff0000", "#dc143c", "#cc0000", "#e00000", "#b22222"],
    "green": ["#008000", "#00ff00", "#228b22", "#32cd32", "#006400", "#00b000"],
    "blue": ["#0000ff", "#000080", "#4169e1", "#0000cd", "#1e90ff", "#00008b"],
    "yellow": ["#ffff00", "#ffd700", "#ffee00"],
    "orange": ["#ffa500", "#ff8c00", "#ff8800"],
    "purple": ["#800080", "#4b0082", "#9400d3", "#663399", "#a020f0", "#8a2be2"],
    "black": ["#000000", "#0a0a0a"],
    "white": ["#ffffff", "#fcfcfc"],
    "grey": ["#808080", "#d3d3d3", "#696969", "#a9a9a9", "#c0c0c0", "#555555", "#404040"],
    "pink": ["#ffc0cb", "#ff69b4"],
    "brown": ["#8b4513", "#a0522d"],
    "cyan": ["#00ffff", "#00ced1"],
}
MAX_THINGS = 6
MIN_CONTRAST, MIN_CONTRAST_SAME_NAME = 55, 110
SIDE, GRID, FINE_GRID = 192, 6, 12
# How often a drawn image is used, each time in another of eight mirrored and transposed forms; the first is as drawn.
VIEWS = 2
WAYS = [(False, False, False)] + [way for way in itertools.product((False, True), repeat=3) if any(way)]
# how often several things may share a cell of the 3 x 3 grid
CROWDED = 0.1
# an easy scene: how many things it holds, how often, and how small they get
EASY_COUNTS, EASY_SMALLEST = {1: 0.6, 2: 0.25, 3: 0.15}, 0.24


def rgb_of(written: str) -> RGB:
    """The RGB of a colour as CSS writes it, without its opacity."""
    red, green, blue, *_ = ImageColor.getrgb(written)
    return red, green, blue


def random_shade(rng: Random, colour: str) -> RGB:
    """An RGB that people call by this name."""
    if rng.random() < 0.35:
        return rgb_of(rng.choice(TYPED[colour]))
    hue, saturation, value = (rng.uniform(*bounds) for bounds in rng.choice(SHADES[colour]))
    return _rgb(hue, saturation, value)


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def random_colour(rng: Random) -> str:
    """A colour's name; those beyond the promised nine are rarer."""
    names = list(SHADES)
    return rng.choices(names, [0.25 if name in EXTRA_COLOURS else 1 for name in names])[0]


def random_background(rng: Random) -> Background:
    """(name, RGB); the name is '' if people would not agree on one."""
    kind = rng.random()
    if kind < 0.34:
        return "white", (255, 255, 255) if rng.random() < 0.7 else random_shade(rng, "white")
    if kind < 0.45:
        return "black", random_shade(rng, "black")
    if kind < 0.56:
        return "grey", random_shade(rng, "grey")
    if kind < 0.76:
        return _pastel(rng)
    name = random_colour(rng)
    return name, random_shade(rng, name)


def _pastel(rng: Random) -> Background:
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.06, 0.4), rng.uniform(0.88, 1)
    names = {"green": (90, 150), "blue": (200, 250), "purple": (262, 295), "pink": (325, 355), "yellow": (50, 62)}
    name = next((name for name, (low, high) in names.items() if low <= hue <= high and saturation > 0.16), "")
    return name, _rgb(hue, saturation, value)


def random_size(rng: Random) -> tuple[int, int]:
    """Width and height in pixels; most aspects are near 1, the longest are 1:4 and 4:1."""
    side = math.exp(rng.uniform(math.log(60), math.log(420)))
    aspect = math.exp(rng.choice([0, rng.uniform(0, 0.4), rng.uniform(0, 0.7), rng.uniform(0, 1.4)]))
    long, short = round(side * math.sqrt(aspect)), round(side / math.sqrt(aspect))
    return (long, short) if rng.random() < 0.6 else (short, long)


def random_scene(rng: Random, n: int | None = None, is_easy: bool = False) -> Scene:
    """A scene of `n` things (by default most often one) that do not overlap; easy ones hold few, large and plain things."""
    if n is None and is_easy:
        n = rng.choices(list(EASY_COUNTS), list(EASY_COUNTS.values()))[0]
    if n is None:
        n = rng.choices(range(MAX_THINGS + 1), [0.01, 0.42, 0.23, 0.17, 0.1, 0.06, 0.01])[0]
    width, height = random_size(rng)
    background = random_background(rng)
    same_colour = random_colour(rng) if rng.random() < 0.15 else None
    same_shape = rng.choice(SHAPES) if rng.random() < 0.2 else None
    things = []
    for place in _places(rng, n, width, height, EASY_SMALLEST if is_easy else 0):
        thing = _random_thing(rng, background, same_colour, same_shape, place)
        things.append(replace(thing, is_hollow=False, outline=None, corners=None) if is_easy else thing)
    return Scene(tuple(sorted(things, key=reading_order)), *background, width, height)


def reading_order(thing: Thing) -> tuple[int, float, float]:
    """Rows from the top, within a row from the left: how answers list objects."""
    return POSITIONS.index(thing.position), thing.x, thing.y


def _random_thing(
    rng: Random, background: Background, same_colour: str | None, same_shape: str | None, place: Place
) -> Thing:
    colour = same_colour if same_colour and rng.random() < 0.7 else random_colour(rng)
    rgb = _contrasting_shade(rng, colour, background)
    while rgb is None:
        colour = random_colour(rng)
        rgb = _contrasting_shade(rng, colour, background)
    shape = same_shape if same_shape and rng.random() < 0.7 else rng.choice(SHAPES)
    thing = Thing(
        colour,
        shape,
        *place,
        rgb=rgb,
        corners=_random_corners(rng, shape),
        angle=rng.choice([0, 0, rng.uniform(-15, 15), rng.uniform(0, 360)]),
    )
    style = rng.random()
    if style < 0.08:
        return replace(thing, is_hollow=True, outline=(rgb, rng.uniform(0.06, 0.16)))
    if style < 0.18:
        darker = rgb[0] // 2, rgb[1] // 2, rgb[2] // 2
        line = rng.choice([(0, 0, 0), (0, 0, 0), darker, (255, 255, 255)])
        return replace(thing, outline=(line, rng.uniform(0.01, 0.045)))
    return thing


def _contrasting_shade(rng: Random, colour: str, background: Background) -> RGB | None:
    """A shade that stands out from the background, or None if four tries found none."""
    name, shade = background
    wanted = MIN_CONTRAST_SAME_NAME if colour == name else MIN_CONTRAST
    for _ in range(4):
        rgb = random_shade(rng, colour)
        if math.dist(rgb, shade) >= wanted:
            return rgb
    return None


def _random_corners(rng: Random, shape: str) -> tuple[Point, ...] | None:
    if shape == "triangle" and rng.random() < 0.4:
        turn = rng.uniform(0, 6.3)
        angles = [turn + i * 2.094 + rng.uniform(-0.5, 0.5) for i in range(3)]
        return tuple((math.cos(a), math.sin(a)) for a in angles)
    if shape == "star" and rng.random() < 0.5:
        points = rng.choices([5, 4, 6], [0.84, 0.06, 0.1])[0]
        return star_corners(points, rng.uniform(0.33, 0.55))
    if shape == "square" and rng.random() < 0.2:
        flat = rng.uniform(0.7, 1)
        return ((-1, -flat), (1, -flat), (1, flat), (-1, flat))
    return None


def _places(rng: Random, n: int, width: int, height: int, at_least: float = 0) -> list[Place]:
    """n non-overlapping (x, y, size), sizes in parts of the shorter side."""
    short = min(width, height)
    smallest = max(at_least, 0.08, 0.055 * max(width, height) / short)
    largest = 0.95 if n <= 1 else min(0.85, 1.15 / math.sqrt(n))
    layout = rng.random() if n > 1 else 1
    may_crowd = rng.random() < CROWDED
    while True:
        if layout < 0.25:
            places = _line(rng, n, width, height, smallest)
        elif layout < 0.45:
            places = _cells(rng, n, smallest)
        else:
            places = [_place(rng, width, height, smallest, largest) for _ in range(n)]
        if not _overlap(places, width, height) and (may_crowd or not _is_crowded(places)):
            return places
        largest, layout = max(smallest * 1.2, largest * 0.93), layout + 0.05


def _place(rng: Random, width: int, height: int, smallest: float, largest: float) -> Place:
    size = math.exp(rng.uniform(math.log(smallest), math.log(max(largest, smallest * 1.2))))
    if rng.random() < 0.3:
        size = rng.uniform(smallest, max(largest, smallest * 1.2))
    half_x, half_y = (size * min(width, height) / 2 / side for side in (width, height))
    if rng.random() < 0.25:
        return 0.5, 0.5, size
    return rng.uniform(half_x, 1 - half_x), rng.uniform(half_y, 1 - half_y), size


def _line(rng: Random, n: int, width: int, height: int, smallest: float) -> list[Place]:
    """Things side by side or one below the other, evenly spaced, of about one size."""
    is_row = rng.random() < 0.7
    room = (width if is_row else height) / n / min(width, height)
    size = max(smallest, rng.uniform(0.35, 0.85) * min(room, 0.9))
    across = rng.choice([0.5, rng.uniform(0.3, 0.7)])
    places = []
    for i in range(n):
        along = (i + 0.5) / n
        x, y = (along, across) if is_row else (across, along)
        places.append((x, y, size * rng.uniform(0.85, 1)))
    return places


def _cells(rng: Random, n: int, smallest: float) -> list[Place]:
    """Things in cells of the 3 x 3 grid, most of them in the middle of their cell."""
    jitter = rng.choice([0, 0.05])
    size = max(smallest, rng.uniform(0.1, 0.3))
    return [
        ((i % 3 + 0.5) / 3 + rng.uniform(-jitter, jitter), (i // 3 + 0.5) / 3 + rng.uniform(-jitter, jitter), size)
        for i in rng.sample(range(9), n)
    ]


def _overlap(places: list[Place], width: int, height: int) -> bool:
    short = min(width, height)
    for i, (x, y, size) in enumerate(places):
        for other_x, other_y, other_size in places[:i]:
            if math.hypot((x - other_x) * width, (y - other_y) * height) < 0.58 * (size + other_size) * short:
                return True
    return False


def _is_crowded(places: list[Place]) -> bool:
    """Whether two things share a cell of the 3 x 3 grid, so answers cannot tell them apart by their place."""
    return len({(int(x * 3), int(y * 3)) for x, y, _ in places}) < len(places)


def squash(image: Image.Image) -> Pixels:
    """The image as the model's processor sees it: uint8 [192, 192, 3]."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def recompress(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG compression."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def picture_of(rng: Random, scene: Scene) -> Pixels:
    """A training image: its edges are jagged or smooth; half of the images are JPEG-compressed, and some are noisy."""
    image = draw(scene, smooth=rng.choice([1, 1, 2]))
    if rng.random() < 0.5:
        image = recompress(image, rng.randint(35, 95))
    pixels = squash(image)
    if rng.random() < 0.1:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 7), pixels.shape)
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return pixels


def covering(scene: Scene, grid: int) -> Cover:
    """Which thing covers each cell of a grid: int [grid, grid], 0 for none, else 1 + its index."""
    part = 96 // grid
    fine = part * grid
    mask = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(mask)
    for i, thing in enumerate(scene.things):
        points = outline_points(thing, scene.width, scene.height)
        pen.polygon([(x * fine / scene.width, y * fine / scene.height) for x, y in points], fill=i + 1)
    cells = np.asarray(mask).reshape(grid, part, grid, part).transpose(0, 2, 1, 3).reshape(grid * grid, part * part)
    counts = np.stack([(cells == i + 1).sum(1) for i in range(MAX_THINGS)], 1)
    return np.where(counts.max(1) * 40 >= part * part, counts.argmax(1) + 1, 0).reshape(grid, grid)


@dataclass(frozen=True)
class View:
    """A scene as the model sees it.

    pixels: uint8 [192, 192, 3]; covers: {grid: int [grid, grid]}, which thing covers each cell, 0 for none, else 1 + its index.
    """

    scene: Scene
    pixels: Pixels
    covers: dict[int, Cover]


def views_of(rng: Random, scene: Scene, n: int = VIEWS) -> list[View]:
    """n views of one drawing."""
    drawn = View(scene, picture_of(rng, scene), {grid: covering(scene, grid) for grid in (GRID, FINE_GRID)})
    return [drawn, *(turned(drawn, *way) for way in rng.sample(WAYS[1:], n - 1))]


def turned(view: View, is_mirrored: bool, is_upside_down: bool, is_transposed: bool) -> View:
    """Another view at the cost of a copy. Its things' places are updated, but their angles and corners are not."""

    def turn(grid: NDArray[Any]) -> NDArray[Any]:
        grid = grid[:: -1 if is_upside_down else 1, :: -1 if is_mirrored else 1]
        return np.ascontiguousarray(grid.swapaxes(0, 1) if is_transposed else grid)

    def place(thing: Thing) -> Thing:
        x = 1 - thing.x if is_mirrored else thing.x
        y = 1 - thing.y if is_upside_down else thing.y
        return replace(thing, x=y, y=x) if is_transposed else replace(thing, x=x, y=y)

    things = [place(thing) for thing in view.scene.things]
    order = sorted(range(len(things)), key=lambda i: reading_order(things[i]))
    new_index = np.zeros(len(things) + 1, int)
    new_index[[i + 1 for i in order]] = range(1, len(things) + 1)
    scene = replace(view.scene, things=tuple(things[i] for i in order))
    return View(scene, turn(view.pixels), {grid: new_index[turn(cover)] for grid, cover in view.covers.items()})
