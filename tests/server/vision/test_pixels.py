"""Pixels are those of the model's own preprocessing."""

import pytest
import torch

from lingbi.vision.pixels import CLIP_MEAN, CLIP_STD, Pixels
from tests.server.vision.drawing import noise


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
