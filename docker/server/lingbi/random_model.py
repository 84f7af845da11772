"""scripts/make-model: a model folder in a published geometry with random weights.

It takes memory, time and prompt tokens as the real one does, so that an installation can be
measured without 17 GB of download; its answers mean nothing.
"""

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path

import torch

from lingbi.errors import ConfigurationError, LingbiError
from lingbi.models import DEMO_FOLDER

WEIGHT_STD = 0.02
COPIED = ("generation_config.json", "special_tokens_map.json")


def main(arguments=None) -> int:
    """Exit status: 0 made, 2 bad arguments."""
    options = parse(arguments)
    start = time.monotonic()
    try:
        size = make(options.geometry, options.tokenizer, options.to, options.seed)
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{options.to}: {size / 1e9:.2f} GB in {time.monotonic() - start:.1f} s")
    return 0


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/make-model", description=__doc__.split("\n")[0])
    parser.add_argument("geometry", type=Path, help="folder with tensors.json, config.json and tokenizer_config.json")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.model of the published models")
    parser.add_argument("--to", type=Path, required=True, help="new folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def make(geometry: Path, tokenizer: Path, to: Path, seed: int) -> int:
    """Write the folder; returns the bytes of its weights.

    tensors.json holds {"tensors": {name: {"shape": […], "file": shard}}}.
    """
    tensors = json.loads(read(geometry / "tensors.json"))["tensors"]
    config = json.loads(read(geometry / "config.json"))
    if to.exists():
        raise ConfigurationError(f"{to} is there already; name a new folder")
    to.mkdir(parents=True)
    (to / "config.json").write_text(json.dumps(with_own_code(config), indent=2))
    tokenizer_config = json.loads(read(geometry / "tokenizer_config.json"))
    (to / "tokenizer_config.json").write_text(json.dumps(with_own_code(tokenizer_config), indent=2))
    shutil.copyfile(tokenizer, to / "tokenizer.model")
    for name in COPIED:
        shutil.copyfile(geometry / name, to / name)
    for code in DEMO_FOLDER.glob("*.py"):
        shutil.copyfile(code, to / code.name)
    return write_shards(tensors, to, seed)


def read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def with_own_code(config: dict) -> dict:
    """The config with its remote code taken from lingbi's demo repository, whatever it named."""
    own = json.loads((DEMO_FOLDER / "config.json").read_text())["auto_map"]
    own |= json.loads((DEMO_FOLDER / "tokenizer_config.json").read_text())["auto_map"]
    mapped = {name: own[name] for name in config["auto_map"]}
    replaced = {"tokenizer_class": "InternLMXComposer2Tokenizer"} if "tokenizer_class" in config else {}
    return config | replaced | {"auto_map": mapped}


def write_shards(tensors: dict, to: Path, seed: int) -> int:
    generator = torch.Generator(device()).manual_seed(seed)
    names = sorted({entry["file"] for entry in tensors.values()})
    size = 0
    for shard in names:
        state = {
            name: random_tensor(name, entry["shape"], generator)
            for name, entry in tensors.items()
            if entry["file"] == shard
        }
        size += sum(tensor.nbytes for tensor in state.values())
        torch.save(state, to / shard)
    if len(names) > 1:
        index = {
            "metadata": {"total_size": size},
            "weight_map": {name: entry["file"] for name, entry in tensors.items()},
        }
        (to / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return size


def device() -> str:
    """Where random numbers are made: minutes for 8 billion on a CPU, a second on a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def random_tensor(name: str, shape: list, generator: torch.Generator) -> torch.Tensor:
    """Norm weights are ones; the others are normal, small enough for activations to stay finite."""
    if "norm" in name and name.endswith("weight") and len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    values = torch.empty(math.prod(shape), dtype=torch.bfloat16, device=generator.device)
    return values.normal_(std=WEIGHT_STD, generator=generator).reshape(shape).cpu()


if __name__ == "__main__":
    sys.exit(main())
