"""The only way in for images: a request's URLs become upright RGB images, or a sentence that says why not.

What a file may be is lingbi_pictures' to say, before anything is decoded. Local paths are never opened. Decoding runs in
threads of its own, in which keys take turns, and slow pictures have theirs apart from quick ones.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.images.data_urls import BLANKS, SCHEME, decode_data_url
from lingbi.images.download import FetchRules, fetch
from lingbi.images.refusals import refusals
from lingbi.turns import BACKGROUND
from lingbi.vision.cache import remember_file
from lingbi_pictures.lanes import QUICK_S, SLOW_NICE, Lane, Room, cores
from lingbi_pictures.picture import Budget, decoded, inspected

# How many characters of a URL are looked at to find its scheme.
MAX_HEAD = 4096
QUICK_THREADS = 4
MOST_SLOW_THREADS = 4
# Requests that fetch images, or hold fetched ones until they are decoded, and of one key; this bounds their memory.
FETCHING_REQUESTS = 32
FETCHING_OF_ONE = 16
FETCHING_IN_BACKGROUND = 16  # of all keys together; the others always find the rest
# Requests whose decoded images are in memory until they are encoded: of quick pictures, and of slow ones besides those that
# are being decoded. A slow request takes 200 MB, and 350 MB while it is decoded.
QUICK_ROOM = 12
SLOW_ROOM_BESIDE = 1
Observe = Callable[[float], None]  # is called with the seconds that each decoding took
Done = TypeVar("Done")


@dataclass(frozen=True)
class ImageRules:
    """What a request may send. max_bytes: of one image; max_pixels: of all its images together."""

    max_pictures: int = 16
    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    fetch: FetchRules = field(default_factory=FetchRules)


@dataclass(frozen=True)
class Decoded:
    """A request's images, in order, and the seconds until all were fetched and from then until all were decoded."""

    images: list[Image.Image]
    fetch_s: float
    decode_s: float


class ImageDoor:
    """Loads images by one set of rules, in threads of its own."""

    def __init__(self, rules: ImageRules) -> None:
        self.rules = rules
        slow_threads = max(1, min(MOST_SLOW_THREADS, cores() // 2))
        self._quick, self._slow = Lane("pictures", QUICK_THREADS), Lane("slow-pictures", slow_threads, SLOW_NICE)
        self._quick_room, self._slow_room = Room(QUICK_ROOM), Room(slow_threads + SLOW_ROOM_BESIDE)
        self._fetching = Room(FETCHING_REQUESTS, FETCHING_OF_ONE)
        self._fetching_in_background = Room(FETCHING_IN_BACKGROUND)

    async def load(self, urls: list[str], observe: Observe = lambda seconds: None) -> list[Image.Image]:
        """The PIL images of URLs, in order. Raises ImageError for the first that cannot be used."""
        async with self.decoded(urls, observe=observe) as found:
            return found.images

    @contextlib.asynccontextmanager
    async def decoded(
        self, urls: list[str], key: str = "", observe: Observe = lambda seconds: None
    ) -> AsyncIterator[Decoded]:
        """The images of URLs, for as long as the caller holds them; the number of requests that do is bounded.

        key: whose they are, as an Asker's name; observe: called with the seconds that each image took. A request that brings its images
        along never waits for one that fetches them. Raises ImageError for the first image that cannot be used.
        """
        if len(urls) > self.rules.max_pictures:
            raise ImageError(
                f"the request has {len(urls)} pictures, and at most {self.rules.max_pictures} are taken", reason="count"
            )
        begun = time.monotonic()
        async with contextlib.AsyncExitStack() as room:
            async with self._place_to_fetch(key) if any(map(is_elsewhere, urls)) else contextlib.nullcontext():
                sources = await _all_numbered(map(self._fetch_one, urls))
                fetched = time.monotonic()
                is_quick = await self._seconds(sources, key) <= QUICK_S
                await room.enter_async_context((self._quick_room if is_quick else self._slow_room).place(key))
                lane = self._quick if is_quick else self._slow
                images = await self._decode_all(sources, lane, key, observe)
            yield Decoded(images, fetched - begun, time.monotonic() - fetched)

    @contextlib.asynccontextmanager
    async def _place_to_fetch(self, key: str) -> AsyncIterator[None]:
        part = self._fetching_in_background.place(key) if key.endswith(BACKGROUND) else contextlib.nullcontext()
        async with part, self._fetching.place(key):
            yield

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

    async def _seconds(self, sources: list[str | bytes], key: str) -> float:
        """The estimated seconds of decoding; more than a request may take are refused before anything is decoded."""
        budget = Budget(self.rules.max_pixels)

        def inspect(source: str | bytes) -> float:
            with refusals():
                picture = inspected(self._bytes(source))
                budget.take(picture)
            return picture.seconds

        return sum(await _all_numbered(self._quick.run(key, partial(inspect, source)) for source in sources))

    async def _decode_all(
        self, sources: list[str | bytes], lane: Lane, key: str, observe: Observe
    ) -> list[Image.Image]:
        budget = Budget(self.rules.max_pixels)

        async def decode_one(source: str | bytes) -> Image.Image:
            image, seconds = await lane.run(key, partial(self._decode, source, budget))
            observe(seconds)
            return image

        return await _all_numbered(map(decode_one, sources))

    def _bytes(self, source: str | bytes) -> bytes:
        """A file's bytes. Those of a data: URL are read anew each time, so that a request that waits holds them once."""
        return decode_data_url(source, self.rules.max_bytes) if isinstance(source, str) else source

    def _decode(self, source: str | bytes, budget: Budget) -> tuple[Image.Image, float]:
        """The image of a file's bytes or data: URL, and the seconds that decoding took."""
        data = self._bytes(source)
        start = time.monotonic()
        image = decode(data, budget)
        seconds = time.monotonic() - start
        remember_file(image, data)
        return image, seconds


def is_elsewhere(url: str) -> bool:
    """Whether an image must be fetched."""
    return head_of(url).lower().startswith(("http://", "https://"))


def head_of(url: str) -> str:
    """The beginning of a URL without leading blanks. It runs on the event loop, so it reads MAX_HEAD characters at most."""
    return url[:MAX_HEAD].lstrip(BLANKS)


async def _all_numbered(work: Iterable[Awaitable[Done]]) -> list[Done]:
    """The results for all images, in order. Of several, a refused one is told by its number."""
    items = list(work)
    return await _all(_numbered(item, number, len(items)) for number, item in enumerate(items, 1))


async def _numbered(item: Awaitable[Done], number: int, count: int) -> Done:
    try:
        return await item
    except ImageError as error:
        if count == 1:
            raise
        raise ImageError(f"picture {number} of {count}: {error}", reason=error.reason) from None


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


def decode(data: bytes, budget: Budget) -> Image.Image:
    """The upright RGB image of a file's bytes. Raises ImageError."""
    with refusals():
        return decoded(data, budget)
