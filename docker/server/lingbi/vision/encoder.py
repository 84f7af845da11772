"""Replaces lmdeploy's ImageEncoder: images in, features out, from any thread or event loop.

lmdeploy resizes images one after the other on the encoder's thread and dies at the first bad one (lmdeploy threads 1602,
2302, 2869). Here several threads prepare images, the encoder takes as many at once as the model allows, an exception fails
only its own image, and a cached image is not encoded again.
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
FRESH_BYTES = 16  # length of the key of an image that bypasses the cache; a content hash has 32
Features = Future[torch.Tensor]  # [tokens, hidden] on the CPU


class VisionModel(Protocol):
    """Computes the features of images, at most `max_batch` at once."""

    max_batch: int

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image as `forward` takes it; called from any thread."""

    def forward(self, prepared: list[torch.Tensor]) -> list[torch.Tensor]:
        """Features [tokens, hidden], on the CPU, of the images that `prepare` returned."""


@dataclass
class Work:
    """A prepared image in the queue, its cache key, and the future of its features."""

    key: bytes
    pixels: torch.Tensor
    done: Features


class ImageEncoder:
    """One thread that encodes for a whole process.

    cache: features of earlier images; pulse: the encoder's heartbeat, for the watchdog.
    """

    def __init__(self, model: VisionModel, cache: FeatureCache):
        self.model, self.cache, self.pulse = model, cache, Pulse()
        self._preparing = ThreadPoolExecutor(min(MAX_PREPARERS, os.cpu_count() or 1), "prepare")
        self._waiting: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._under_way: dict[bytes, Features] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="encoder", daemon=True).start()

    def submit(self, image: Image.Image, is_fresh: bool = False) -> Features:
        """Start to encode a PIL image, past the cache if is_fresh; the future holds its features or the model's exception."""
        done = Features()
        self._preparing.submit(self._prepare, image, is_fresh, done)
        return done

    async def encode(self, images: list[Image.Image], is_fresh: bool = False) -> list[torch.Tensor]:
        """Features of images, in order, as the engine takes them. Raises ValueError if an image cannot be encoded."""
        jobs = [self.submit(image, is_fresh) for image in images]
        # wait, not gather: a caller that leaves must not cancel work that other callers may wait for.
        await asyncio.wait([asyncio.wrap_future(job) for job in jobs])
        return [_result(job) for job in jobs]

    async def async_infer(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """The same as `encode`, for lmdeploy's own callers, which convert the features to numpy arrays."""
        return [_for_numpy(features) for features in await self.encode(images)]

    def infer(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """The same as `async_infer`, without an event loop."""
        return [_for_numpy(_result(job)) for job in [self.submit(image) for image in images]]

    def _prepare(self, image: Image.Image, is_fresh: bool, done: Features) -> None:
        try:
            key = os.urandom(FRESH_BYTES) if is_fresh else content_hash(image)
        except Exception as error:  # whatever Pillow raises for an image fails that image only
            done.set_exception(error)
            return
        features = self.cache.get(key)
        if features is not None:
            done.set_result(features)
        elif not self._joins(key, done):
            try:
                self._waiting.put(Work(key, self.model.prepare(image), done))
            except Exception as error:  # the same goes for the model's own code
                self._settle(key, done, error)

    def _joins(self, key: bytes, done: Features) -> bool:
        """Whether the same image is being encoded already; if so, `done` gets its result."""
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
        except Exception as error:  # with one image it is that image's; of several, each is tried alone
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
