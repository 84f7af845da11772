"""The catalogue agrees with the published checkpoints, and is what README and scripts/plan show."""

import json
import math

import pytest

from lingbi.cli import plan
from lingbi.model import catalogue
from lingbi.model.resolve import find_model
from tests.conftest import ROOT

PUBLISHED = ROOT.parent / "shared/models"


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
def test_facts_are_those_of_the_published_checkpoint(model):
    folder = PUBLISHED / model.served_name
    config = json.loads((folder / "config.json").read_text())
    tensors = json.loads((folder / "tensors.json").read_text())["tensors"]
    shape = model.geometry
    assert sum(2 * math.prod(entry["shape"]) for entry in tensors.values()) == model.weight_bytes
    assert (shape.hidden_size, shape.intermediate_size) == (config["hidden_size"], config["intermediate_size"])
    assert (shape.layers, shape.heads) == (config["num_hidden_layers"], config["num_attention_heads"])
    assert (shape.kv_heads, model.session_len) == (config["num_key_value_heads"], config["max_length"])
    assert catalogue.recognise(config) is model


def test_kv_bytes_are_those_measured():
    assert [model.geometry.kv_bytes for model in catalogue.MODELS] == [131072, 131072, 131072, 98304]


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize(("readme", "purpose"), [("README.md", "purpose"), ("README.zh-CN.md", "purpose_zh")])
def test_readmes_show_the_catalogue(model, readme, purpose):
    row = next(line for line in (ROOT / readme).read_text().splitlines() if line.startswith(f"| `{model.name}` |"))
    facts = (
        model.hub_id.split("/")[1],
        getattr(model, purpose),
        f"{model.weight_bytes / 1e9:.1f} GB",
        model.image_range(),
        str(model.session_len),
        f"{model.card_gb} GB",
    )
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == list(facts)


def test_plan_shows_every_model_and_what_is_here(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LINGBI_MODELS_DIR", str(tmp_path))
    (tmp_path / "internlm-xcomposer2-7b").mkdir()
    (tmp_path / "internlm-xcomposer2-7b" / "config.json").touch()
    assert plan.main([]) == 0
    lines = {}
    for line in capsys.readouterr().out.splitlines():
        lines.setdefault((line.split() or [""])[0], line)
    for model in catalogue.MODELS:
        assert model.hub_id in lines[model.name] and str(model.geometry.kv_bytes) in lines[model.name]
    assert "present" in lines["7b"] and "to be fetched" in lines["vl-7b"] and "demo" in lines


@pytest.mark.parametrize(
    "name", ["vl-7b", "internlm-xcomposer2-vl-7b", "Shanghai_AI_Laboratory/internlm-xcomposer2-vl-7b"]
)
def test_every_name_of_a_model_means_the_same_folder(tmp_path, name):
    found = find_model(name, tmp_path)
    assert found.path == tmp_path / "internlm-xcomposer2-vl-7b" and found.is_to_come


def test_other_models_of_the_hub_have_folders_of_their_own(tmp_path):
    assert find_model("somebody/fine-tuned", tmp_path).path == tmp_path / "somebody--fine-tuned"


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_a_folder_of_every_published_geometry_is_recognised(tmp_path, model):
    """Every tensor by name and full shape, on storage that takes no disk; loading is tests/gpu's and vl-1_8b's here."""
    import shutil

    import torch

    from lingbi.model.folder import inspect
    from lingbi.model.random import COPIED, with_own_code
    from tests.conftest import DEMO

    source = PUBLISHED / model.served_name
    tensors = json.loads((source / "tensors.json").read_text())["tensors"]
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(with_own_code(json.loads((source / name).read_text()))))
    for file in (PUBLISHED / "tokenizer.model", *(source / name for name in COPIED), *DEMO.glob("*.py")):
        shutil.copyfile(file, tmp_path / file.name)
    one = torch.zeros(1, dtype=torch.bfloat16)
    for shard in {entry["file"] for entry in tensors.values()}:
        mine = {name: entry["shape"] for name, entry in tensors.items() if entry["file"] == shard}
        torch.save({name: one.expand(shape) for name, shape in mine.items()}, tmp_path / shard)
    found = inspect(tmp_path)
    assert (found.served_name, found.template) == (model.served_name, model.template)
    assert found.session_len == model.session_len and found.is_tiled == (model.image_side is None)
