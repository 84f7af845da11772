"""scripts/make-model: a model folder in a published geometry with random weights.

It needs as much memory, time and prompt tokens as the real model, so an installation can be
measured without downloading 17 GB; its answers mean nothing. With fewer layers every tensor keeps its
shape, so a machine that cannot hold the whole model reads and serves the folder in the same way.
"""

import argparse
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lingbi.errors import ConfigurationError, LingbiError
from lingbi.model.resolve import DEMO_FOLDER

WEIGHT_STD = 0.02
COPIED = ("generation_config.json", "special_tokens_map.json")
Tensors = dict[str, dict[str, Any]]  # by name: "shape" and "file"
Config = dict[str, Any]
LAYER = re.compile(r"model\.layers\.(\d+)\.")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 made, 2 bad arguments."""
    options = parse(arguments)
    start = time.monotonic()
    try:
        size = make(options.geometry, options.tokenizer, options.to, options.seed, options.layers, options.code)
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{options.to}: {size / 1e9:.2f} GB in {time.monotonic() - start:.1f} s")
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/make-model", description=__doc__.split("\n")[0])
    parser.add_argument("geometry", type=Path, help="folder with tensors.json, config.json and tokenizer_config.json")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.model of the published models")
    parser.add_argument("--to", type=Path, required=True, help="new folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, help="layers of the language model (default: as published)")
    parser.add_argument(
        "--code",
        type=Path,
        help="folder with the model's own .py files, for an `auto_map` as published (default: lingbi's)",
    )
    return parser.parse_args(arguments)


def make(
    geometry: Path, tokenizer: Path, to: Path, seed: int, layers: int | None = None, code: Path | None = None
) -> int:
    """Write the folder; returns the bytes of its weights. Raises ConfigurationError.

    tensors.json holds {"tensors": {name: {"shape": […], "file": shard}}}. layers: how many of the first layers to keep.
    code: a folder with remote code; None: lingbi's own, under lingbi's names.
    """
    tensors = json.loads(read(geometry / "tensors.json"))["tensors"]
    config = json.loads(read(geometry / "config.json"))
    if layers is not None:
        tensors, config = with_layers(tensors, config, layers)
    if to.exists():
        raise ConfigurationError(f"{to} is there already; name a new folder")
    if code is not None and not list(code.glob("*.py")):
        raise ConfigurationError(f"--code {code}: no .py file is there; give the folder of a model's remote code")
    to.mkdir(parents=True)
    mapped = with_own_code if code is None else lambda published: published
    (to / "config.json").write_text(json.dumps(mapped(config), indent=2))
    tokenizer_config = json.loads(read(geometry / "tokenizer_config.json"))
    (to / "tokenizer_config.json").write_text(json.dumps(mapped(tokenizer_config), indent=2))
    shutil.copyfile(tokenizer, to / "tokenizer.model")
    for name in COPIED:
        shutil.copyfile(geometry / name, to / name)
    for file in (code or DEMO_FOLDER).glob("*.py"):
        shutil.copyfile(file, to / file.name)
    return write_shards(tensors, to, seed)


def with_layers(tensors: Tensors, config: Config, layers: int) -> tuple[Tensors, Config]:
    """Tensor list and config with only the first layers of the language model. Raises ConfigurationError."""
    published = config["num_hidden_layers"]
    if not 1 <= layers <= published:
        raise ConfigurationError(f"--layers {layers}: give 1 to {published}, which the published model has")
    kept = {
        name: entry for name, entry in tensors.items() if not (layer := LAYER.match(name)) or int(layer[1]) < layers
    }
    return kept, config | {"num_hidden_layers": layers}


def read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def with_own_code(config: Config) -> Config:
    """The config with its remote code replaced by that of lingbi's demo model."""
    own = json.loads((DEMO_FOLDER / "config.json").read_text())["auto_map"]
    own |= json.loads((DEMO_FOLDER / "tokenizer_config.json").read_text())["auto_map"]
    mapped = {name: own[name] for name in config["auto_map"]}
    replaced = {"tokenizer_class": "InternLMXComposer2Tokenizer"} if "tokenizer_class" in config else {}
    return config | replaced | {"auto_map": mapped}


def write_shards(tensors: Tensors, to: Path, seed: int) -> int:
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
    """Where random numbers are generated: 8 billion take minutes on a CPU and a second on a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def random_tensor(name: str, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Norm weights are ones; the others are normally distributed, small enough for activations to stay finite."""
    if "norm" in name and name.endswith("weight") and len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    values = torch.empty(shape, dtype=torch.float32, device=generator.device)  # bfloat16 is four times slower on a CPU
    return values.normal_(std=WEIGHT_STD, generator=generator).to(torch.bfloat16).cpu()


if __name__ == "__main__":
    sys.exit(main())
