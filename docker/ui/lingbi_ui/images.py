"""Images that visitors upload: whether the model can use them, and how they are sent to it."""

import asyncio
import base64
import io
import mimetypes
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
KINDS = FORMATS | {"MPO": "image/jpeg"}  # a phone's JPEG with a preview; its first image counts
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif", "image/bmp": ".bmp"}
MAX_PIXELS = 50_000_000  # the server's limit for all images of a request together
MAX_ASPECT = 200
MIB = 1 << 20
MAX_SENT_BYTES = 23 * MIB  # of all images; as base64 they fit into the gateway's 32 MiB together with the text
JPEG_QUALITY = 90
HEAD_BYTES = 32
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
VIDEO_HEADS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"FLV")


# What Pillow's readers raise on broken files, besides the errors that they mean to raise.
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
# Two images are decoded at a time over all visitors, because a large one takes 200 MB while it is decoded.
THREADS = ThreadPoolExecutor(2, "pictures")


Result = TypeVar("Result")


class ImageFault(Exception):
    """An image that cannot be used; `word` names the sentence that says why, `name` the file."""

    def __init__(self, word: str, name: str = ""):
        super().__init__(word)
        self.word, self.name = word, name


async def aside(work: Callable[..., Result], *arguments: object) -> Result:
    """Run slow work in a thread, so that it delays no other visitor."""
    return await asyncio.get_running_loop().run_in_executor(THREADS, work, *arguments)


def check_image(file: Path, max_mib: int) -> None:
    """Raise ImageFault unless the file is an image that the server will accept."""
    try:
        if file.stat().st_size > max_mib * MIB:
            raise ImageFault("picture_large", file.name)
        with _open(file) as image:
            _check_shape(image, file.name)
            image.load()
    except FileNotFoundError:
        raise ImageFault("picture_gone", file.name) from None
    except (UnidentifiedImageError, *BROKEN):
        raise ImageFault(_kind_of(file), file.name) from None


def named(file: Path) -> Path:
    """The file under a name that browsers show as an image, whatever its own is; another name for it, if need be."""
    kind, _ = mimetypes.guess_type(file.name)
    if kind in FORMATS.values():
        return file
    with _open(file) as image:
        other = file.with_name(f"{file.name}{SUFFIXES[KINDS[str(image.format)]]}")
    if not other.exists():
        os.link(file, other)
    return other


def _open(source: Path | io.BytesIO) -> Image.Image:
    return Image.open(source, formats=tuple(FORMATS))


def _check_shape(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageFault("picture_pixels", name)
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ImageFault("picture_narrow", name)
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageFault("picture_animated", name)


def _kind_of(file: Path) -> str:
    """What a file is if it is not an image that the page accepts."""
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head[4:8] == b"ftyp":
        return "picture_heic" if head[8:12] in HEIC_BRANDS else "picture_video"
    if head.startswith(VIDEO_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "picture_video"
    return "picture_unreadable"


def data_url(file: Path, images: int = 1) -> str:
    """The file as a data URL; made smaller if that many images like it would not fit into a request.

    Raises ImageFault if the file is gone or is not an image.
    """
    try:
        data = file.read_bytes()
        with _open(io.BytesIO(data)) as image:
            kind, pixels, size = KINDS[image.format], MAX_PIXELS // images, MAX_SENT_BYTES // images
            if image.width * image.height > pixels or len(data) > size:
                kind, data = KINDS["JPEG"], _smaller(image, pixels, size)
    except FileNotFoundError:
        raise ImageFault("picture_gone", file.name) from None
    except (UnidentifiedImageError, *BROKEN):
        raise ImageFault("picture_unreadable", file.name) from None
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def _smaller(image: Image.Image, pixels: int, size: int) -> bytes:
    """A JPEG of at most the given pixels and bytes."""
    image = _on_paper(cast(Image.Image, ImageOps.exif_transpose(image)))  # None only if it works in place
    while True:
        scale = min(1.0, (pixels / (image.width * image.height)) ** 0.5)
        sides = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        buffer = io.BytesIO()
        image.resize(sides, reducing_gap=2.0).save(buffer, "JPEG", quality=JPEG_QUALITY)
        if buffer.tell() <= size:
            return buffer.getvalue()
        pixels = sides[0] * sides[1] // 2


def _on_paper(image: Image.Image) -> Image.Image:
    """The image as RGB, as the server sees it: 16-bit values scaled, transparent areas white."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        whole = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return image.convert("RGB")
