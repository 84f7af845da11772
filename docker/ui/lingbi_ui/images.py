"""Images that visitors upload: whether the model can use them, and how they are sent to it.

What a picture's file may be is lingbi_pictures' to say, as in the server.
"""

import base64
import contextlib
import io
import mimetypes
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image

from lingbi_pictures.faults import PictureFault
from lingbi_pictures.formats import HEAD_BYTES, TYPES, format_of
from lingbi_pictures.lanes import QUICK_S, SLOW_NICE, Lane
from lingbi_pictures.paper import to_rgb, upright
from lingbi_pictures.picture import MAX_SECONDS, Budget, inspected, opened

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp"}
MAX_PIXELS = 50_000_000  # the server's limit for all images of a request together
MIB = 1 << 20
MAX_SENT_BYTES = 23 * MIB  # of all images; as base64 they fit into the gateway's 32 MiB together with the text
JPEG_QUALITY = 90
# Which sentence says why, by lingbi_pictures' reasons.
WORDS = {
    "pixels": "picture_pixels",
    "aspect": "picture_narrow",
    "frames": "picture_animated",
    "scans": "picture_slow",
    "work": "picture_slow",
    "coding": "picture_slow",
    "segments": "picture_metadata",
    "metadata": "picture_metadata",
}
OTHERS = {"heic": "picture_heic", "video": "picture_video"}
Result = TypeVar("Result")


class ImageFault(Exception):
    """An image that cannot be used; `word` names the sentence that says why, `name` the file."""

    def __init__(self, word: str, name: str = ""):
        super().__init__(word)
        self.word, self.name = word, name


class ImageThreads:
    """Works on visitors' images in threads of its own; visitors take turns, and slow images have a thread apart.

    A large image takes 200 MB while it is decoded.
    """

    def __init__(self) -> None:
        self._quick, self._slow = Lane("pictures", 2), Lane("slow-pictures", 1, SLOW_NICE)

    async def run(self, visitor: str, file: Path, work: Callable[[Path], Result]) -> Result:
        """The result of work that decodes a file, for a visitor. Raises what the work raises, and ImageFault."""
        seconds = await self._quick.run(visitor, partial(_seconds, file))
        lane = self._quick if seconds <= QUICK_S else self._slow
        return await lane.run(visitor, partial(work, file))


def check_image(file: Path, max_mib: int) -> None:
    """Raise ImageFault unless the file is an image that the server will accept."""
    with _faults(file.name):
        if file.stat().st_size > max_mib * MIB:
            raise ImageFault("picture_large", file.name)
        with opened(file.read_bytes()) as (image, picture):
            Budget(MAX_PIXELS).take(picture)
            image.load()


def named(file: Path) -> Path:
    """The file under a name that browsers show as an image, whatever its own is; another name for it, if need be."""
    kind, _ = mimetypes.guess_type(file.name)
    if kind in TYPES.values():
        return file
    with file.open("rb") as stream:
        other = file.with_name(f"{file.name}{SUFFIXES[str(format_of(stream.read(HEAD_BYTES)))]}")
    if not other.exists():
        os.link(file, other)
    return other


def data_url(file: Path, images: int = 1) -> str:
    """The file as a data URL; made smaller if that many images like it would not fit into a request.

    Raises ImageFault if the file is gone or is not an image.
    """
    with _faults(file.name):
        data = file.read_bytes()
        with opened(data) as (image, picture):
            Budget(MAX_PIXELS).take(picture)
            kind, pixels, size = TYPES[picture.format], MAX_PIXELS // images, MAX_SENT_BYTES // images
            if picture.pixels > pixels or len(data) > size or picture.seconds > MAX_SECONDS / images:
                kind, data = TYPES["JPEG"], _smaller(image, pixels, size)
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def _seconds(file: Path) -> float:
    """The estimated seconds of decoding a file; none for one that is refused, which the work itself will say."""
    try:
        return inspected(file.read_bytes()).seconds
    except (PictureFault, OSError):
        return 0.0


@contextlib.contextmanager
def _faults(name: str) -> Iterator[None]:
    """Turns what is wrong with a file into an ImageFault."""
    try:
        yield
    except FileNotFoundError:
        raise ImageFault("picture_gone", name) from None
    except PictureFault as fault:
        word = WORDS.get(fault.reason) or OTHERS.get(str(fault.facts.get("other")), "picture_unreadable")
        raise ImageFault(word, name) from None


def _smaller(image: Image.Image, pixels: int, size: int) -> bytes:
    """A JPEG of at most the given pixels and bytes."""
    image = to_rgb(upright(image))
    while True:
        scale = min(1.0, (pixels / (image.width * image.height)) ** 0.5)
        sides = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        buffer = io.BytesIO()
        image.resize(sides, reducing_gap=2.0).save(buffer, "JPEG", quality=JPEG_QUALITY)
        if buffer.tell() <= size:
            return buffer.getvalue()
        pixels = sides[0] * sides[1] // 2
