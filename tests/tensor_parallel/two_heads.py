"""The demo model with two key-value heads, so that two GPUs can share it: the same answers from other matrices.

The demo has two query heads and one key-value head, which cannot be split. Here each query head has a key-value head of its
own. What the second GPU gets differs from what the first has: its keys and queries are turned, its values are mixed, and the
neurons of the feed-forward layers change places. Each of these changes only moves numbers and their signs, and is undone
by the matrix that follows, so in exact arithmetic nothing changes; a part that goes to the wrong GPU, or to none, does.
"""

import json
import shutil
from pathlib import Path

import torch

HEAD = 128  # width of a head
FILES = ("pytorch_model.bin", "config.json")


def make_two_heads(demo: Path, to: Path, seed: int = 0) -> Path:
    """Write the model with two key-value heads into a new folder; demo: the folder of lingbi's demo model."""
    shutil.copytree(demo, to, ignore=shutil.ignore_patterns(*FILES, "__pycache__"))
    config = json.loads((demo / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}, indent=2))
    tensors = torch.load(demo / "pytorch_model.bin", map_location="cpu", weights_only=True)
    torch.save(two_heads(tensors, seed), to / "pytorch_model.bin")
    return to


def two_heads(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """The tensors of the model with two key-value heads."""
    generator = torch.Generator().manual_seed(seed)
    mixed, signs = torch.randperm(HEAD, generator=generator), _signs(HEAD, generator)
    turned = torch.randint(4, (HEAD // 2,), generator=generator)
    neurons = torch.randperm(tensors["model.layers.0.feed_forward.w1.weight"].shape[0], generator=generator)
    changed = {}
    for name, tensor in tensors.items():
        has_rows, has_columns = "Plora_A" not in name, "Plora_B" not in name  # that belong to heads or neurons
        if ".wqkv." in name and has_rows:
            tensor = _two_groups(tensor, turned, mixed, signs)
        elif ".wo." in name and has_columns:
            tensor = torch.cat((tensor[:, :HEAD], tensor[:, HEAD:][:, mixed] * signs), dim=1)
        elif (".w1." in name or ".w3." in name) and has_rows:
            tensor = tensor[neurons]
        elif ".w2." in name and has_columns:
            tensor = tensor[:, neurons]
        changed[name] = tensor.contiguous().clone()
    return changed


def _two_groups(rows: torch.Tensor, turned: torch.Tensor, mixed: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Rows of two query heads, a key and a value become those of two groups of a query head, a key and a value."""
    first, second, key, value = rows.split(HEAD)
    return torch.cat((first, key, value, _turn(second, turned), _turn(key, turned), value[mixed] * signs[:, None]))


def _turn(rows: torch.Tensor, quarters: torch.Tensor) -> torch.Tensor:
    """Each pair of rows that rotary embedding turns together, turned by so many quarters, which it leaves alone."""
    low, high = rows.chunk(2)
    table = torch.stack(
        (torch.cat((low, high)), torch.cat((-high, low)), torch.cat((-low, -high)), torch.cat((high, -low)))
    )
    return table[quarters.repeat(2), torch.arange(HEAD)]


def _signs(count: int, generator: torch.Generator) -> torch.Tensor:
    return (torch.randint(2, (count,), generator=generator) * 2 - 1).half()
