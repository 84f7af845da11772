"""The one check of a picture's file, and its decoding.

`opened` reads heads only. The seconds of decoding are estimated from rates that were measured on one core of a
server of 2023; what they must be good for is to keep a picture that takes tens of seconds from one that takes one.
"""

import contextlib
import io
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from lingbi_pictures import bmp, gif, jpeg, png, webp
from lingbi_pictures.bounds import MAX_ASPECT
from lingbi_pictures.exif import UPRIGHT, orientation
from lingbi_pictures.faults import PictureFault
from lingbi_pictures.formats import format_of, other_format
from lingbi_pictures.paper import is_clear, to_rgb, upright

# The estimate for all pictures of a request together. The slowest that are in use take less: 50 megapixels from a phone
# 0.6 s, as a progressive JPEG of 20 MiB 1.9 s, as a PNG with transparency 1.9 s.
MAX_SECONDS = 2.0
# What Pillow's readers raise for broken files, on purpose or not.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    Image.DecompressionBombError,
)
# Estimates by the file alone, before Pillow sees it, and with the pixels that Pillow finds.
BEFORE: dict[str, Callable[[bytes], float]] = {"JPEG": jpeg.seconds, "PNG": png.seconds, "GIF": gif.seconds}
AFTER: dict[str, Callable[[bytes, int], float]] = {"WEBP": webp.seconds, "BMP": bmp.seconds}
# Nanoseconds a pixel of making RGB from other modes, and of turning an image.
CLEAR_NS, MODE_NS, OTHER_MODE_NS, TURN_NS = 11.0, {"RGB": 0.0, "CMYK": 8.0, "I": 8.0, "I;16": 8.0}, 2.0, 4.0


@dataclass(frozen=True)
class Picture:
    """What the head of a file says, and the estimated seconds that decoding takes."""

    format: str
    width: int
    height: int
    seconds: float

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Budget:
    """The pixels and the decoding that one request may have; the threads that decode its pictures share it."""

    def __init__(self, pixels: int, seconds: float = MAX_SECONDS) -> None:
        self.pixels, self.seconds, self._lock = pixels, seconds, threading.Lock()
        self._left, self._left_s = pixels, seconds

    def take(self, picture: Picture) -> None:
        """Use a picture's share. Raises PictureFault if too little is left."""
        size = {"width": picture.width, "height": picture.height}
        with self._lock:
            if picture.pixels > self._left:
                raise PictureFault("pixels", **size, most=self.pixels, left=self._left)
            if picture.seconds > self._left_s:
                facts = {"seconds": picture.seconds, "most": self.seconds, "left": self._left_s}
                raise PictureFault("work", **size, **facts, format=picture.format)
            self._left -= picture.pixels
            self._left_s -= picture.seconds


def inspected(data: bytes) -> Picture:
    """What a file holds, from its head. Raises PictureFault."""
    with opened(data) as (_, picture):
        return picture


def decoded(data: bytes, budget: Budget) -> Image.Image:
    """The upright RGB image of a file's bytes. Raises PictureFault."""
    with opened(data) as (image, picture):
        budget.take(picture)
        return to_rgb(upright(image))


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[tuple[Image.Image, Picture]]:
    """Pillow's image of a file, of which only the head is read, and what it holds.

    Raises PictureFault, also for what Pillow finds while the image is used.
    """
    kind = format_of(data)
    if not kind:
        raise PictureFault("format", other=other_format(data))
    try:
        seconds = BEFORE[kind](data) if kind in BEFORE else 0.0
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            _check_shape(image)
            seconds += AFTER[kind](data, image.width * image.height) if kind in AFTER else 0.0
            yield image, Picture(kind, image.width, image.height, seconds + _conversion_seconds(image))
    except UnidentifiedImageError:
        raise PictureFault("broken", why=f"no {kind} could be read") from None
    except BROKEN as error:
        raise PictureFault("broken", why=str(error)[:150] or type(error).__name__) from None


def _check_shape(image: Image.Image) -> None:
    """Refuse an image by what the head of its file says. Raises PictureFault."""
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureFault("empty", width=width, height=height)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureFault("aspect", width=width, height=height, most=MAX_ASPECT)
    # Of a JPEG with several images (a phone's, with a preview), the first is used.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise PictureFault("frames")


def _conversion_seconds(image: Image.Image) -> float:
    """The seconds that turning an image and making it RGB take."""
    mode_ns = CLEAR_NS if is_clear(image) else MODE_NS.get(image.mode, OTHER_MODE_NS)
    turn_ns = TURN_NS if orientation(image.info) != UPRIGHT else 0.0
    return image.width * image.height * (mode_ns + turn_ns) * 1e-9
