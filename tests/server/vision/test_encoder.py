"""The encoder's thread: batches, cached features, exceptions."""

import asyncio
import threading

import pytest
from PIL import Image

from lingbi.vision.cache import FeatureCache
from lingbi.vision.encoder import ImageEncoder
from tests.server.vision.drawing import bytes_of


class Tower:
    """Features of a picture are its mean colour; a black one raises; notes what was encoded together."""

    max_batch = 4

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def prepare(self, image):
        if image.size == (3, 3):
            raise OSError("cannot be prepared")
        return bytes_of(image).float()

    def forward(self, prepared):
        self.gate.wait(10)
        self.batches.append(len(prepared))
        if any(not item.any() for item in prepared):
            raise RuntimeError("black")
        return [item.mean((0, 1))[None] for item in prepared]


def encoder(cache_bytes: int = 1000) -> ImageEncoder:
    return ImageEncoder(Tower(), FeatureCache(cache_bytes))


def plain(value: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (value,) * 3)


def test_an_image_that_was_seen_is_not_encoded_again():
    ours = encoder()
    first, again = ours.infer([plain(9)])[0], ours.infer([plain(9).copy()])[0]
    assert again is first and ours.model.batches == [1]
    assert (ours.cache.hits, ours.cache.misses, ours.cache.held_bytes) == (1, 1, first.nbytes)


def test_a_fresh_look_is_neither_remembered_nor_a_memory():
    ours = encoder()
    ours.infer([plain(9)])
    asyncio.run(ours.encode([plain(9)], is_fresh=True))
    assert len(ours.model.batches) == 2 and ours.cache.held_bytes == 12


def test_what_arrives_meanwhile_is_encoded_together_and_the_same_image_once():
    ours = encoder()
    ours.model.gate.clear()
    first = ours.submit(plain(1))
    others = [ours.submit(plain(value)) for value in (2, 3, 4, 2, 5, 6)]
    ours.model.gate.set()
    values = [job.result(10)[0, 0].item() for job in (first, *others)]
    assert values == [1, 2, 3, 4, 2, 5, 6]
    assert sum(ours.model.batches) == 6 and max(ours.model.batches) <= Tower.max_batch


def test_an_exception_belongs_to_its_image_and_ends_nothing():
    ours = encoder()
    ours.model.gate.clear()
    jobs = [ours.submit(image) for image in (plain(1), plain(2), plain(0), Image.new("RGB", (3, 3)), plain(4))]
    ours.model.gate.set()
    assert [job.exception(10) and str(job.exception()) for job in jobs] == [
        None,
        None,
        "black",
        "cannot be prepared",
        None,
    ]
    assert ours.pulse.pending == 0
    with pytest.raises(ValueError, match="a picture could not be encoded: black"):
        ours.infer([plain(0)])
    assert ours.infer([plain(7)])[0][0, 0] == 7


def test_memory_of_images_is_bounded():
    ours = encoder(cache_bytes=10 * 12)
    for value in range(1, 201):
        ours.infer([plain(value)])
        assert ours.cache.held_bytes <= 10 * 12
    ours.infer([plain(200), plain(1)])
    assert ours.cache.hits == 1


def test_without_memory_every_image_is_encoded():
    ours = encoder(cache_bytes=0)
    ours.infer([plain(5)])
    ours.infer([plain(5)])
    assert ours.model.batches == [1, 1] and ours.cache.held_bytes == 0
