"""Held-out images and questions, drawn and worded differently from those that the model is trained on."""

import io
import math
from random import Random

from PIL import Image, ImageDraw

from lingbi.images.scenes import Scene, Thing

from .pictures import picture_of, random_scene, reading_order, recompress, rgb_of

# colours by the names that people give to PIL
NAMED = {
    "red": ["red", "#e60000", "crimson", "#c80000"],
    "green": ["green", "lime", "forestgreen", "limegreen", "darkgreen", "#00c800"],
    "blue": ["blue", "navy", "royalblue", "mediumblue", "dodgerblue", "#0000c8"],
    "yellow": ["yellow", "gold", "#ffe600"],
    "orange": ["orange", "darkorange", "#ff8000"],
    "purple": ["purple", "indigo", "darkviolet", "rebeccapurple", "#8000ff"],
    "black": ["black", "#101010"],
    "white": ["white", "#fafafa"],
    "grey": ["grey", "lightgrey", "dimgrey", "darkgrey", "#404040"],
}
BACKGROUNDS = (
    [("white", "white")] * 6
    + [("black", "black"), ("black", "#0a0a0a"), ("grey", "grey"), ("grey", "lightgrey"), ("grey", "#505050")]
    + [
        ("", "lightyellow"),
        ("", "lavender"),
        ("", "beige"),
        ("", "mistyrose"),
        ("", "honeydew"),
        ("", "aliceblue"),
        ("", "wheat"),
        ("", "lightblue"),
        ("yellow", "yellow"),
        ("blue", "navy"),
        ("green", "green"),
        ("red", "darkred"),
        ("blue", "blue"),
        ("orange", "orange"),
    ]
)
SIZES = [
    (64, 64),
    (100, 100),
    (128, 96),
    (200, 200),
    (224, 224),
    (256, 256),
    (300, 200),
    (320, 240),
    (400, 400),
    (480, 640),
    (512, 512),
    (640, 480),
    (800, 200),
    (200, 600),
    (1024, 768),
    (1000, 250),
    (250, 1000),
    (1920, 1080),
    (4000, 3000),
]
MIN_CONTRAST = 60

QUESTIONS = {
    ("describe", "zh"): [
        "请描述图中内容",
        "这张图里都画了点什么?",
        "图片上能看到什么",
        "说说你看到的画面",
        "帮忙描述一下这个图片,谢谢",
        "请看看这是什么图",
        "你好,请介绍这幅图像",
        "图上画的啥",
    ],
    ("describe", "en"): [
        "Describe the image.",
        "What can be seen in this picture?",
        "Please tell me what this image contains.",
        "what's in the pic",
        "Could you describe what is drawn here?",
        "What do you see?",
        "Give me a one-sentence description of the photo.",
        "Hi! What is this a picture of?",
    ],
    ("colour", "zh"): [
        "什么颜色?",
        "请问它的颜色是?",
        "图中的东西是什么颜色的呀",
        "这个图形涂了什么颜色",
        "它是啥颜色",
        "物体颜色是什么?",
    ],
    ("colour", "en"): [
        "What colour is it?",
        "what color is the object?",
        "Tell me the color of the shape, please.",
        "Which colour does the object have?",
        "Color?",
        "May I ask what colour this is?",
    ],
    ("shape", "zh"): ["什么形状?", "请问图中物体是什么形状", "它的形状是什么呢?", "这是一个什么图形", "是啥形状的"],
    ("shape", "en"): [
        "What shape is it?",
        "Which shape is shown in the image?",
        "Tell me the shape.",
        "What is the shape of the object in the picture?",
        "and what is its shape?",
    ],
    ("number", "zh"): ["图中有几个物体?", "一共有多少个图形", "请数一数有几个", "有几个东西?", "图里共有几个物体呢"],
    ("number", "en"): [
        "How many objects are there?",
        "How many shapes do you see in the picture?",
        "Count the objects, please.",
        "how many things are drawn",
        "What is the number of shapes?",
    ],
    ("position", "zh"): ["它在哪里?", "物体在图中的什么位置?", "图形位于哪个位置", "在图片的哪个地方?"],
    ("position", "en"): [
        "Where is it?",
        "Where is the object located in the image?",
        "In which part of the picture is the shape?",
        "What is its position?",
    ],
    ("background", "zh"): ["背景是什么颜色?", "背景颜色是什么", "图片的底色呢?"],
    ("background", "en"): [
        "What colour is the background?",
        "background color?",
        "What is the color of the background in the image?",
    ],
}

JSON_QUESTIONS = {
    "en": [
        "List the objects as JSON with colour, shape and position.",
        "What is in this picture? Reply with JSON.",
        "Give me all shapes with their colors and places, JSON only",
        "JSON please: every object in the image",
        "Convert the picture to a JSON list of objects.",
    ],
    "zh": [
        "请用JSON列出图中的物体，包括颜色、形状和位置",
        "图里画了什么？用JSON回答",
        "以json格式描述这张图",
        "把所有图形的颜色、形状、位置写成JSON",
        "识别图中物体，输出JSON",
    ],
}


def heldout_picture(rng: Random, i: int) -> tuple[Image.Image, Scene]:
    """(image, scene): every second one in this file's style, the others as in training but with another seed."""
    if i % 2:
        return plain_picture(rng)
    scene = random_scene(rng, n=None if rng.random() < 0.5 else 1)
    while not scene.things:
        scene = random_scene(rng)
    return Image.fromarray(picture_of(rng, scene)), scene


def plain_picture(rng: Random) -> tuple[Image.Image, Scene]:
    """(image, scene) as a person would script it with PIL: plain primitives, named colours, usual sizes, PNG or JPEG."""
    width, height = rng.choice(SIZES)
    background, paint = rng.choice(BACKGROUNDS)
    image = Image.new("RGB", (width, height), paint)
    n = rng.choice([1, 1, 1, 2, 2, 3, 4, 5])
    cells = rng.sample(range(9), n)
    things = [_draw_in_cell(rng, image, paint, cell, alone=n == 1) for cell in cells]
    scene = Scene(tuple(sorted(things, key=reading_order)), background, rgb_of(paint), width, height)
    if rng.random() < 0.5:
        return recompress(image, rng.choice([50, 75, 90])), scene
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue())), scene


def _draw_in_cell(rng: Random, image: Image.Image, background: str, cell: int, alone: bool) -> Thing:
    colour = rng.choice(list(NAMED))
    paint = rng.choice(NAMED[colour])
    while math.dist(rgb_of(paint), rgb_of(background)) < MIN_CONTRAST:
        colour = rng.choice(list(NAMED))
        paint = rng.choice(NAMED[colour])
    width, height = image.size
    short = min(width, height)
    size = short * (rng.uniform(0.2, 0.9) if alone else rng.uniform(0.17, 0.27))
    x, y = (cell % 3 + 0.5) / 3 * width, (cell // 3 + 0.5) / 3 * height
    x = min(max(x, size / 2), width - size / 2)
    y = min(max(y, size / 2), height - size / 2)
    shape = rng.choice(["circle", "square", "triangle", "star"])
    _draw_shape(rng, ImageDraw.Draw(image), shape, x, y, size / 2, paint)
    return Thing(colour, shape, x / width, y / height, size / short, rgb=rgb_of(paint))


def _draw_shape(rng: Random, pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, paint: str) -> None:
    turn = rng.choice([0, 0, rng.randrange(360)])
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=paint)
    elif shape == "square" and not turn:
        pen.rectangle((x - r, y - r, x + r, y + r), fill=paint)
    elif shape == "star":
        points = [
            (x + q * math.sin(math.radians(turn + 36 * i)), y - q * math.cos(math.radians(turn + 36 * i)))
            for i in range(10)
            for q in [r if i % 2 == 0 else r * 0.42]
        ]
        pen.polygon(points, fill=paint)
    elif shape == "triangle" and not turn:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=paint)
    else:
        pen.regular_polygon((x, y, r), 4 if shape == "square" else 3, rotation=turn, fill=paint)
