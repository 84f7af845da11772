"""Images made for tests of the vision path."""

import numpy as np
import torch
from PIL import Image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def bytes_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))
