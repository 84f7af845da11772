"""Reads checkpoint shards without reading them through: only what is used leaves the disk, or the page cache."""

import os
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

# torch 2.1 warns of its own way to map a file.
warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)


def read_mapped(shard: Path) -> dict[str, torch.Tensor]:
    """Tensors of a shard by name, mapped from the file; nothing but tensors comes out of a pickle."""
    if shard.suffix == ".safetensors":
        return load_file(shard)
    return torch.load(os.fspath(shard), map_location="cpu", mmap=True, weights_only=True)
