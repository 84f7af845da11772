"""Pillow's bicubic resizing of bytes on the GPU, to the bit.

Pillow multiplies bytes with coefficients that are whole numbers of 22 bits, columns first, then rows,
and rounds to bytes after each (Pillow, src/libImaging/Resample.c). In float64 these products and sums
are exact, so two matrix products give the same bytes.
"""

from functools import lru_cache

import numpy as np
import torch

PRECISION_BITS = 22
BICUBIC_SUPPORT, BICUBIC_A = 2.0, -0.5
KEPT_TABLES = 8  # of 1-3 MB each: pictures of a lab come in few sizes


def resized(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 [side, side, 3] of uint8 [height, width, 3], on the same device."""
    # One plane after the other: float64 takes eight times the memory, and a card may be small.
    return torch.stack([_resized_plane(plane, side) for plane in pixels.unbind(-1)], dim=-1)


def _resized_plane(plane: torch.Tensor, side: int) -> torch.Tensor:
    height, width = plane.shape
    if width != side:
        plane = _bytes_of(plane.double() @ coefficients(width, side, plane.device).double().T)
    if height != side:
        plane = _bytes_of(coefficients(height, side, plane.device).double() @ plane.double())
    return plane


def _bytes_of(sums: torch.Tensor) -> torch.Tensor:
    return sums.add_(2.0 ** (PRECISION_BITS - 1)).div_(2.0**PRECISION_BITS).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=KEPT_TABLES)
def coefficients(size: int, new_size: int, device) -> torch.Tensor:
    """float32 [new_size, size]: the share that each old pixel has in each new one, times 2**22, rounded.

    Whole numbers below 2**24, which float32 holds exactly in half the memory of float64.
    """
    scale = size / new_size
    filter_scale = max(scale, 1.0)
    support = BICUBIC_SUPPORT * filter_scale
    table = np.zeros((new_size, size))
    for new in range(new_size):
        centre = (new + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        shares = _bicubic((np.arange(first, last) - centre + 0.5) / filter_scale)
        table[new, first:last] = shares / shares.sum()
    whole = np.trunc(table * 2**PRECISION_BITS + np.copysign(0.5, table))
    return torch.from_numpy(whole.astype(np.float32)).to(device)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), BICUBIC_A
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
