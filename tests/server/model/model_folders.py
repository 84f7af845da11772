"""Folders that look like published models: the demo's files under another geometry."""

import json
import shutil
from pathlib import Path

from tests.conftest import DEMO

GEOMETRIES = {
    "vl-7b": {"hidden_size": 4096, "img_size": 490},
    "7b": {"hidden_size": 4096, "img_size": 224},
    "vl-1_8b": {"hidden_size": 2048, "img_size": 490},
    "4khd-7b": {"hidden_size": 4096, "architectures": ["InternLM2ForCausalLM"], "max_length": 16384},
}


def edit_config(folder: Path, **changes) -> None:
    """Change a folder's config.json; None removes what stands there."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def take_geometry(folder: Path, name: str) -> None:
    """Turn a copy of the demo model into what is recognised as this published model."""
    edit_config(folder, lingbi_demo=None, img_size=None)
    edit_config(folder, **GEOMETRIES[name])


def published(models_dir: Path, name: str, size: int) -> Path:
    """A published model's folder with weights of this many bytes, which take no disk."""
    folder = shutil.copytree(DEMO, models_dir / f"internlm-xcomposer2-{name}")
    take_geometry(folder, name)
    file = folder / "pytorch_model.bin"
    whole = file.read_bytes()
    with file.open("wb") as stream:
        stream.seek(size - len(whole))
        stream.write(whole)
    return folder
