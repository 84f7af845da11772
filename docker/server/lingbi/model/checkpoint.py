"""Opens checkpoint shards as memory-mapped files: only the tensors that are used are read from disk."""

import os
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

# The code in torch 2.1 that maps a file triggers this warning itself.
warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)


def read_mapped(shard: Path) -> dict[str, torch.Tensor]:
    """Tensors of a shard by name, mapped from the file; a pickle may hold nothing but tensors."""
    if shard.suffix == ".safetensors":
        return load_file(shard)
    return torch.load(os.fspath(shard), map_location="cpu", mmap=True, weights_only=True)
