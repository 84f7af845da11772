"""Prepares an image for the vision tower: bytes on the CPU, numbers on the GPU.

Resizing is Pillow's, as in the models' training: a bit-exact copy of it on the GPU or, for large images, Pillow itself in
several threads. Normalising is a table look-up on the GPU: a byte has 256 values, so the table holds exactly the results
of the model's own code.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from lingbi.vision.resize import resized

# Facts of the CLIP model, the same in all published models.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PROBE_SIDE = 16  # values of a byte in a square
# Larger images are resized before they go to the GPU, where their copies would take memory that a small card lacks.
GPU_RESIZE_PIXELS = 1 << 20


class Pixels:
    """Prepares images for a model whose own `vis_processor` resizes them to a square of `side` (None: keeps their size).

    arrange: a step before that, from image to image (4khd's tiles).
    """

    def __init__(
        self,
        processor: Callable[[Image.Image], torch.Tensor],
        side: int | None,
        arrange: Callable[[Image.Image], Image.Image] = lambda image: image,
    ):
        self.processor, self.side, self.arrange = processor, side, arrange
        self.table = normalised_bytes()
        self.is_known = True
        self.is_known = self._is_known()

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """uint8 [height, width, 3]; half [3, height, width] if the model prepares images in a way that lingbi does not know."""
        image = self.arrange(image if image.mode == "RGB" else image.convert("RGB"))
        if not self.is_known:
            return self.processor(image).half()
        if self.side is not None and image.width * image.height > GPU_RESIZE_PIXELS:
            image = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image))

    def fit(self, pixels: torch.Tensor) -> torch.Tensor:
        """The result of `prepare`, resized for the tower, on its own device."""
        return pixels if self.side is None or not self.is_known else resized(pixels, self.side)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """half [n, 3, height, width] of stacked results of `prepare`, on their own device."""
        if batch.dtype != torch.uint8:
            return batch
        channels = torch.arange(3, device=batch.device)
        return self.table.to(batch.device)[channels, batch.long()].permute(0, 3, 1, 2).contiguous()

    def _is_known(self) -> bool:
        """Whether the table and the resizing match the model's own code to the bit."""
        values = np.arange(PROBE_SIDE**2, dtype=np.uint8).reshape(PROBE_SIDE, PROBE_SIDE)
        probe = Image.fromarray(np.stack((values, values.T, values[::-1]), axis=-1))
        with torch.device("cpu"):
            theirs = self.processor(probe).half()
        ours = self.normalise(self.fit(torch.from_numpy(np.array(probe)))[None])[0]
        return theirs.shape == ours.shape and torch.equal(theirs, ours)


def normalised_bytes() -> torch.Tensor:
    """half [3, 256]: each channel's byte, normalised in float32 as torchvision does."""
    values = torch.arange(256, device="cpu").to(torch.float32).div(255).expand(3, -1)
    mean, std = (torch.tensor(numbers, device="cpu").view(3, 1) for numbers in (CLIP_MEAN, CLIP_STD))
    return values.sub(mean).div(std).half()
