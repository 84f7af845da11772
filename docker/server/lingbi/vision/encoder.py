"""Takes the place of lmdeploy's ImageEncoder: pictures in, features out, from any thread or event loop.

lmdeploy resizes pictures one after the other on the encoder's thread and dies of the first bad one
(lmdeploy threads 1602, 2302, 2869). Here several threads prepare them, as many as the model takes at
once are encoded together, an exception belongs to its own picture, and a picture that was seen before is not encoded again.
"""

import asyncio
import logging
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from lingbi.heartbeat import Pulse
from lingbi.vision.cache import FeatureCache, content_hash

log = logging.getLogger(__name__)
MAX_PREPARERS = 8
FRESH_BYTES = 16  # a key of a picture that is encoded anew and not kept; a content hash has 32
Features = Future[torch.Tensor]  # [tokens, hidden] on the CPU


class VisionModel(Protocol):
    """What makes features of pictures: at most `max_batch` at once."""

    max_batch: int

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The picture as `forward` takes it; called from any thread."""

    def forward(self, prepared: list[torch.Tensor]) -> list[torch.Tensor]:
        """Features [tokens, hidden], on the CPU, of what `prepare` gave."""


@dataclass
class Work:
    """A prepared picture on its way, its cache key, and who waits for its features."""

    key: bytes
    pixels: torch.Tensor
    done: Features


class ImageEncoder:
    """One thread that encodes for a whole process.

    cache: features of pictures seen before; pulse: told of the work, for the watchdog.
    """

    def __init__(self, model: VisionModel, cache: FeatureCache):
        self.model, self.cache, self.pulse = model, cache, Pulse()
        self._preparing = ThreadPoolExecutor(min(MAX_PREPARERS, os.cpu_count() or 1), "prepare")
        self._waiting: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._under_way: dict[bytes, Features] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="encoder", daemon=True).start()

    def submit(self, image: Image.Image, is_fresh: bool = False) -> Features:
        """Features of one PIL picture, encoded anew if is_fresh; raises what the model raised for it."""
        done = Features()
        self._preparing.submit(self._prepare, image, is_fresh, done)
        return done

    async def encode(self, images: list[Image.Image], is_fresh: bool = False) -> list[torch.Tensor]:
        """Features of pictures, in order, as the engine takes them. Raises ValueError for one that cannot be encoded."""
        jobs = [self.submit(image, is_fresh) for image in images]
        # wait, not gather: a caller that leaves must not cancel what others may wait for too.
        await asyncio.wait([asyncio.wrap_future(job) for job in jobs])
        return [_result(job) for job in jobs]

    async def async_infer(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """As `encode`, for lmdeploy's own callers, who make numpy arrays of it."""
        return [_for_numpy(features) for features in await self.encode(images)]

    def infer(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """As `async_infer`, without an event loop."""
        return [_for_numpy(_result(job)) for job in [self.submit(image) for image in images]]

    def _prepare(self, image: Image.Image, is_fresh: bool, done: Features) -> None:
        try:
            key = os.urandom(FRESH_BYTES) if is_fresh else content_hash(image)
        except Exception as error:  # whatever a picture does to Pillow is its own fault
            done.set_exception(error)
            return
        features = self.cache.get(key)
        if features is not None:
            done.set_result(features)
        elif not self._joins(key, done):
            try:
                self._waiting.put(Work(key, self.model.prepare(image), done))
            except Exception as error:  # the same, and to the model's code
                self._settle(key, done, error)

    def _joins(self, key: bytes, done: Features) -> bool:
        """Whether the same picture is under way already; `done` then ends with it."""
        with self._lock:
            first = self._under_way.setdefault(key, done)
            if first is done:
                self.pulse.begin()
                return False
        first.add_done_callback(lambda job: _copy(job, done))
        return True

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self.model.max_batch and not self._waiting.empty():
                batch.append(self._waiting.get())
            self._encode(batch)

    def _encode(self, batch: list[Work]) -> None:
        try:
            features = self.model.forward([work.pixels for work in batch])
        except Exception as error:  # of one picture: its own; of several: each is tried alone
            if len(batch) == 1:
                self._settle(batch[0].key, batch[0].done, error)
            else:
                for work in batch:
                    self._encode([work])
            return
        for work, found in zip(batch, features, strict=True):
            if len(work.key) != FRESH_BYTES:
                self.cache.put(work.key, found)
            self._settle(work.key, work.done, found)

    def _settle(self, key: bytes, done: Features, found: torch.Tensor | Exception) -> None:
        is_done = not isinstance(found, Exception)
        with self._lock:
            self._under_way.pop(key, None)
            self.pulse.end(is_done)
        if isinstance(found, Exception):
            done.set_exception(found)
        else:
            done.set_result(found)


def _copy(job: Features, other: Features) -> None:
    error = job.exception()
    if error:
        other.set_exception(error)
    else:
        other.set_result(job.result())


def _result(job: Features) -> torch.Tensor:
    error = job.exception()
    if error:
        raise ValueError(f"a picture could not be encoded: {error}") from error
    return job.result()


def _for_numpy(features: torch.Tensor) -> torch.Tensor:
    """numpy has no bfloat16."""
    return features.half() if features.dtype == torch.bfloat16 else features
