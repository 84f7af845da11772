"""Resizing without a GPU gives Pillow's bytes."""

import pytest
import torch
from PIL import Image

from lingbi.vision.resize import resized
from tests.server.vision.drawing import bytes_of, noise

SIZES = [
    (640, 480),
    (480, 640),
    (31, 77),
    (490, 100),
    (100, 490),
    (1, 1),
    (2, 900),
    (2, 300),
    (3, 300),
    (900, 2),
    (491, 489),
    (1234, 771),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [490, 224])
@pytest.mark.parametrize("is_harsh", [False, True])
def test_resizing_gives_pillows_bytes(size, side, is_harsh):
    image = noise(*size)
    if is_harsh:  # black and white: the filter overshoots, and sums are cut to a byte
        image = image.point(lambda value: 255 * (value > 127))
    expected = bytes_of(image.resize((side, side), Image.Resampling.BICUBIC))
    assert torch.equal(resized(bytes_of(image), side), expected)
