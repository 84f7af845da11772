"""Any image as upright RGB on white paper, as the model sees it."""

import numpy as np
from PIL import Image

from lingbi_pictures.exif import orientation

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
STRIP_PIXELS = 2_000_000
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its metadata say; broken ones are ignored. It is decoded here."""
    turn = TURNS.get(orientation(image.info))
    image.load()
    return image.transpose(turn) if turn is not None else image


def is_clear(image: Image.Image) -> bool:
    """Whether an image may have transparent areas."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: 16 bits are scaled, not clipped, and transparent areas become white, as on paper."""
    if image.mode.startswith("I"):
        return _from_16_bits(image.convert("I"), image.info.get("transparency")).convert("RGB")
    if is_clear(image):
        return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it


def _on_white(image: Image.Image) -> Image.Image:
    """An RGBA image on white, strip by strip: Pillow keeps the interpreter's lock while it blends."""
    paper = Image.new("RGB", image.size, "white")
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image.crop(box)
        paper.paste(strip.convert("RGB"), box, mask=strip.getchannel("A"))
    return paper


def _from_16_bits(image: Image.Image, clear: object) -> Image.Image:
    """A 16-bit grey image (mode I) in 8 bits; clear: the value that is transparent, which Pillow leaves alone."""
    grey = image.point(lambda value: value * (1 / 257)).convert("L")
    if isinstance(clear, int):
        grey.paste(255, mask=Image.fromarray(np.asarray(image) == clear))
    return grey
