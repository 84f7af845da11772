"""The picture path without a GPU: resizing to the bit, the encoder's thread, its memory, exceptions."""

import asyncio
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from lingbi.vision.cache import FeatureCache, content_hash, remember_file
from lingbi.vision.clip import PROJECTIONS, folded_activation, packed_projections
from lingbi.vision.encoder import ImageEncoder
from lingbi.vision.pixels import CLIP_MEAN, CLIP_STD, Pixels
from lingbi.vision.resize import resized

SIZES = [(640, 480), (480, 640), (31, 77), (490, 100), (100, 490), (1, 1), (2, 900), (491, 489), (1234, 771)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def bytes_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [490, 224])
@pytest.mark.parametrize("is_harsh", [False, True])
def test_resizing_gives_pillows_bytes(size, side, is_harsh):
    image = noise(*size)
    if is_harsh:  # black and white: the filter overshoots, and sums are cut to a byte
        image = image.point(lambda value: 255 * (value > 127))
    expected = bytes_of(image.resize((side, side), Image.Resampling.BICUBIC))
    assert torch.equal(resized(bytes_of(image), side), expected)


def clip_processor(side, mean=CLIP_MEAN):
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

    squash = [Resize((side, side), InterpolationMode.BICUBIC)] if side else []
    return Compose([*squash, ToTensor(), Normalize(mean, CLIP_STD)])


@pytest.mark.parametrize("side", [490, 224, None])
def test_pixels_are_those_of_the_models_own_code(side):
    """What the published repositories have for `vis_processor`: torchvision's transforms."""
    pixels = Pixels(clip_processor(side), side)
    assert pixels.is_known
    for image in (noise(640, 480), noise(1300, 900)):  # one for the GPU to resize, one too large
        ours = pixels.normalise(pixels.fit(pixels.prepare(image))[None])[0]
        assert torch.equal(ours, clip_processor(side)(image).half())


def test_a_model_with_another_way_keeps_it():
    other = clip_processor(224, mean=(0.5, 0.5, 0.5))
    pixels = Pixels(other, 224)
    assert not pixels.is_known
    ours = pixels.normalise(pixels.fit(pixels.prepare(noise(40, 30)))[None])[0]
    assert torch.equal(ours, other(noise(40, 30)).half())


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


def test_a_image_that_was_seen_is_not_encoded_again():
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


def test_the_content_decides_not_the_file():
    wide, tall = Image.new("RGB", (2, 8)), Image.new("RGB", (8, 2))
    assert content_hash(wide) == content_hash(wide.copy()) != content_hash(tall)


def clip_layers():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    config = CLIPVisionConfig(**sizes, image_size=28, patch_size=14, hidden_act="quick_gelu")
    torch.manual_seed(0)
    return CLIPVisionModel(config).double().vision_model.encoder.layers


def test_the_activation_folded_into_the_weights_computes_the_same():
    layers, x = clip_layers(), torch.randn(5, 64).double()
    expected = [layer.mlp(x) for layer in layers]
    folded_activation(layers)
    for layer, before in zip(layers, expected, strict=True):
        assert isinstance(layer.mlp.activation_fn, torch.nn.SiLU)
        # the weights go through float32 once
        torch.testing.assert_close(layer.mlp(x), before, rtol=1e-5, atol=1e-6)


def test_another_activation_stays():
    layers = clip_layers()
    layers[0].mlp.activation_fn = torch.nn.GELU()
    before = layers[0].mlp.fc1.weight.clone()
    folded_activation(layers)
    assert torch.equal(layers[0].mlp.fc1.weight, before) and isinstance(layers[0].mlp.activation_fn, torch.nn.GELU)


def test_packed_projections_are_query_key_and_value():
    layers, x = clip_layers(), torch.randn(5, 64).double()
    expected = [[getattr(layer.self_attn, name)(x) for name in PROJECTIONS] for layer in layers]
    packed_projections(layers)
    for layer, parts in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.self_attn.qkv_proj(x), torch.cat(parts, dim=1))
        assert not any(hasattr(layer.self_attn, name) for name in PROJECTIONS)


def test_a_image_from_the_door_is_known_by_its_file():
    """Its own pixels are hashed only where nobody noted the file, as when another program opened it."""
    first, second, other = noise(8, 8), noise(8, 8), noise(8, 8)
    remember_file(first, b"a file")
    remember_file(second, b"a file")
    remember_file(other, b"another file")
    assert content_hash(first) == content_hash(second) != content_hash(other)
    assert content_hash(first) != content_hash(first.copy()) == content_hash(noise(8, 8))
