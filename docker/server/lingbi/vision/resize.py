"""Pillow's bicubic resizing of bytes on the GPU, to the bit.

Pillow multiplies bytes with 22-bit integer coefficients, first along columns, then along rows, and rounds to bytes after
each (Pillow, src/libImaging/Resample.c); since version 12 a very tall picture is shortened first (Image.resize). This module does the same with the same 32-bit integers: it adds one old pixel
after the other to every new one, in two dozen small kernels. Matrix products in float64 would be exact too, but a library
loads its kernels for them, which take 100 MiB more of a small card.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

PRECISION_BITS = 22
BICUBIC_SUPPORT, BICUBIC_A = 2.0, -0.5
VERY_TALL = 100  # heights for each width, beyond which Pillow shortens first
KEPT_TABLES = 64  # of a few KB each


def resized(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 [side, side, 3] of uint8 [height, width, 3], on the same device."""
    height, width, _ = pixels.shape
    is_shortened_first = height > VERY_TALL * width and height > side
    for axis in (0, 1) if is_shortened_first else (1, 0):
        if pixels.shape[axis] != side:
            pixels = _resized_along(axis, pixels, side)
    return pixels


def _resized_along(axis: int, pixels: torch.Tensor, side: int) -> torch.Tensor:
    pixels = pixels.int()
    sums = torch.full((), 1 << (PRECISION_BITS - 1), dtype=torch.int32, device=pixels.device)
    for place, share in coefficients(pixels.shape[axis], side, axis, pixels.device):
        sums = torch.addcmul(sums, pixels.index_select(axis, place), share)
    return (sums >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)  # type: ignore[attr-defined]  # it is a tensor


@lru_cache(maxsize=KEPT_TABLES)
def coefficients(size: int, new_size: int, axis: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(places int64 [new_size], shares int32 [new_size, 1, 1] or [1, new_size, 1] by axis) for each old pixel of a new one.

    shares: what the old pixel at a place gives to the new one, times 2**22, rounded; 0 beyond its last.
    """
    scale = size / new_size
    filter_scale = max(scale, 1.0)
    support = BICUBIC_SUPPORT * filter_scale
    centres = (np.arange(new_size) + 0.5) * scale
    firsts = np.maximum((centres - support + 0.5).astype(int), 0)
    ends = np.minimum((centres + support + 0.5).astype(int), size)
    places = firsts + np.arange((ends - firsts).max())[:, None]
    shares = np.where(places < ends, _bicubic((places - centres + 0.5) / filter_scale), 0.0)
    shares /= shares.sum(0)
    whole = np.trunc(shares * 2**PRECISION_BITS + np.copysign(0.5, shares))
    places = torch.from_numpy(np.minimum(places, size - 1)).to(device)
    shares = torch.from_numpy(whole.astype(np.int32)).to(device)
    return list(zip(places, shares[:, :, None, None] if axis == 0 else shares[:, None, :, None], strict=True))


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(x), BICUBIC_A
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
