"""The only way in for images: a request's URLs become upright RGB images, or a sentence that says why not.

Bytes, format, pixels and frames are checked before anything is decoded in full. Local paths are never opened. Decoding
runs in threads of its own, so that it delays no stream.
"""

import asyncio
import contextlib
import io
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lingbi.api_errors import ImageError
from lingbi.images.data_urls import BLANKS, SCHEME, decode_data_url
from lingbi.images.download import FetchRules, fetch
from lingbi.images.formats import FORMATS, what_it_is
from lingbi.images.jpeg import check_jpeg
from lingbi.vision.cache import remember_file

MAX_ASPECT = 200
# How many characters of a URL are looked at to find its scheme.
MAX_HEAD = 4096
ORIENTATION = 0x0112
DECODERS = 4
# Requests that fetch images, or hold fetched ones until they are decoded; this bounds their memory.
FETCHING_REQUESTS = 32
Observe = Callable[[float], None]  # is called with the seconds that each decoding took
Done = TypeVar("Done")
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


@dataclass(frozen=True)
class ImageRules:
    """What a request may send. max_bytes: of one image; max_pixels: of all its images together."""

    max_pictures: int = 16
    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    fetch: FetchRules = field(default_factory=FetchRules)


class PixelBudget:
    """The pixels that one request may have decoded; the threads that decode its images share it."""

    def __init__(self, pixels: int):
        self.pixels, self._left, self._lock = pixels, pixels, threading.Lock()

    def take(self, width: int, height: int) -> None:
        """Use the pixels of one image. Raises ImageError if too few are left."""
        with self._lock:
            if width * height > self._left:
                raise ImageError(
                    f"the picture is {width} x {height} pixels, and a request may have {self.pixels} in all "
                    f"({self._left} are left)",
                    reason="pixels",
                )
            self._left -= width * height


class ImageDoor:
    """Loads images by one set of rules, in threads of its own."""

    def __init__(self, rules: ImageRules):
        self.rules = rules
        self._threads = ThreadPoolExecutor(DECODERS, "pictures")
        self._fetching = asyncio.Semaphore(FETCHING_REQUESTS)

    async def load(self, urls: list[str], observe: Observe = lambda seconds: None) -> list[Image.Image]:
        """The PIL images of URLs, in order. Raises ImageError for the first that cannot be used."""
        async with self.fetched(urls) as files:
            return await files.decode(observe)

    @contextlib.asynccontextmanager
    async def fetched(self, urls: list[str]) -> AsyncIterator["FetchedImages"]:
        """Fetch the images that are elsewhere, and yield all of them, ready to be decoded.

        A request that brings its images along does not wait here. Raises ImageError for the first image that cannot be
        used.
        """
        if len(urls) > self.rules.max_pictures:
            raise ImageError(
                f"the request has {len(urls)} pictures, and at most {self.rules.max_pictures} are taken", reason="count"
            )
        async with self._fetching if any(map(is_elsewhere, urls)) else contextlib.nullcontext():
            sources = await _all(self._fetch_one(url) for url in urls)
            yield FetchedImages(sources, self)

    async def _fetch_one(self, url: str) -> str | bytes:
        """The bytes of an image that is elsewhere, or a data: URL, unread."""
        if is_elsewhere(url):
            return await fetch(url.strip(BLANKS), self.rules.fetch)
        head = head_of(url)
        if not head.lower().startswith(SCHEME):
            raise ImageError(
                f"a picture's URL must begin with data:, http:// or https://, not {head[:16]!r}", reason="url"
            )
        return url

    async def decode_one(self, source: str | bytes, budget: PixelBudget, observe: Observe) -> Image.Image:
        """The PIL image of a file's bytes or data: URL, decoded in a thread. Raises ImageError."""
        loop = asyncio.get_running_loop()
        image, seconds = await loop.run_in_executor(self._threads, self._decode, source, budget)
        observe(seconds)
        return image

    def _decode(self, source: str | bytes, budget: PixelBudget) -> tuple[Image.Image, float]:
        """The image of a file's bytes or data: URL, and the seconds that decoding took."""
        data = decode_data_url(source, self.rules.max_bytes) if isinstance(source, str) else source
        start = time.monotonic()
        image = decode(data, budget)
        seconds = time.monotonic() - start
        remember_file(image, data)
        return image, seconds


class FetchedImages:
    """A request's images, of which all bytes are here."""

    def __init__(self, sources: list[str | bytes], door: ImageDoor):
        self._sources, self._door = sources, door

    async def decode(self, observe: Observe = lambda seconds: None) -> list[Image.Image]:
        """The PIL images, in order; observe: called with the seconds that each took.

        Raises ImageError for the first that cannot be used.
        """
        budget = PixelBudget(self._door.rules.max_pixels)
        return await _all(self._door.decode_one(source, budget, observe) for source in self._sources)


def is_elsewhere(url: str) -> bool:
    """Whether an image must be fetched."""
    return head_of(url).lower().startswith(("http://", "https://"))


def head_of(url: str) -> str:
    """The beginning of a URL without leading blanks. It runs on the event loop, so it reads MAX_HEAD characters at most."""
    return url[:MAX_HEAD].lstrip(BLANKS)


async def _all(work: Iterable[Awaitable[Done]]) -> list[Done]:
    """The results of coroutines, in order; the first error cancels the others."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def image_urls(messages: Iterable[Any]) -> list[str]:
    """The URLs of all images of a conversation, in order; messages: as the API's protocol defines them."""
    return [
        part.image_url.url
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if part.type == "image_url"
    ]


def decode(data: bytes, budget: PixelBudget) -> Image.Image:
    """The upright RGB image of a file's bytes. Raises ImageError."""
    check_jpeg(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_shape(image)
            budget.take(*image.size)
            return to_rgb(upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"the picture cannot be decoded: it is {what_it_is(data)}", reason="format") from None
    except BROKEN as error:
        raise ImageError(
            f"the picture cannot be decoded: {str(error)[:150] or type(error).__name__}", reason="broken"
        ) from None


def check_shape(image: Image.Image) -> None:
    """Refuse an image by what the head of its file says. Raises ImageError."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"the picture is {width} x {height} pixels", reason="pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"the picture is {width} x {height} pixels, and its sides may differ at most {MAX_ASPECT} times",
            reason="aspect",
        )
    # Of a JPEG with several images (a phone's, with a preview), the first is used.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("the picture is animated; send one frame", reason="frames")


def upright(image: Image.Image) -> Image.Image:
    """The image rotated as its EXIF tag says; a broken tag is ignored."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except BROKEN:
        orientation = 1
    image.load()
    if orientation not in range(2, 9):
        return image
    return cast(Image.Image, ImageOps.exif_transpose(image))  # None only if it works in place


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: 16 bits are scaled, not clipped, and transparent areas become white, as on paper."""
    if image.mode.startswith("I"):
        return from_16_bits(image.convert("I"), image.info.get("transparency")).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        whole = image.convert("RGBA")
        paper = Image.new("RGBA", whole.size, "white")
        return Image.alpha_composite(paper, whole).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it


def from_16_bits(image: Image.Image, clear: object) -> Image.Image:
    """A 16-bit grey image (mode I) in 8 bits; clear: the value that is transparent, which Pillow leaves alone."""
    grey = image.point(lambda value: value * (1 / 257)).convert("L")
    if isinstance(clear, int):
        grey.paste(255, mask=Image.fromarray(np.asarray(image) == clear))
    return grey
