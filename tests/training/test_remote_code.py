"""The demo's remote code fits lmdeploy's picture path and the published geometries."""

import json
from pathlib import Path

import pytest
import torch
from lmdeploy.vl.model.xcomposer2 import Xcomposer2VisionModel
from PIL import Image

from tests.conftest import DEMO, ROOT

# Tensor lists of the published checkpoints, where a developer has them beside the repository.
PUBLISHED = ROOT.parent / "shared/models"
MODELS = sorted(path.parent for path in PUBLISHED.glob("*/tensors.json"))


def test_picture_path_moves_pixels_to_the_towers_device():
    """lmdeploy makes pixels on the CPU while a GPU is the default device; the meta device stands for the GPU."""
    vision = Xcomposer2VisionModel(str(DEMO), device="cpu")
    vision.model = vision.model.to("meta")
    with torch.device("meta"):
        (features,) = vision.forward([Image.new("RGB", (64, 48), "red")])
    assert features.device.type == "meta" and features.shape == (36, 256) and features.dtype == torch.float16


def test_tower_keeps_its_precision_beside_a_half_model():
    vision = Xcomposer2VisionModel(str(DEMO), device="cpu")
    assert {parameter.dtype for parameter in vision.model.vit.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in vision.model.vision_proj.parameters()} == {torch.float16}


def skeleton_shapes(folder: Path, tmp_path: Path) -> dict:
    """Names and shapes that the demo's remote code gives for a published config."""
    from accelerate import init_empty_weights
    from lmdeploy.vl.model.xcomposer2 import init_empty_vit
    from transformers import AutoConfig, AutoModelForCausalLM

    from lingbi.model.random import with_own_code

    for code in DEMO.glob("*.py"):
        (tmp_path / code.name).write_text(code.read_text())
    config = with_own_code(json.loads((folder / "config.json").read_text()))
    (tmp_path / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
    with init_empty_weights(), init_empty_vit():
        config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_published_geometries_have_the_published_tensors(folder, tmp_path):
    published = json.loads((folder / "tensors.json").read_text())["tensors"]
    assert skeleton_shapes(folder, tmp_path) == {name: entry["shape"] for name, entry in published.items()}


@pytest.mark.skipif(not MODELS, reason="the published tensor lists are not beside this repository")
def test_published_tokenizer_gives_the_tutorials_prompt_tokens(tmp_path):
    """147 tokens of text around the picture's 1225: the tutorial's 1372."""
    import shutil

    from lmdeploy.model import MODELS as TEMPLATES
    from lmdeploy.tokenizer import Tokenizer

    from lingbi.model import catalogue
    from lingbi.model.random import with_own_code

    folder = PUBLISHED / "internlm-xcomposer2-vl-7b"
    for code in DEMO.glob("*.py"):
        shutil.copyfile(code, tmp_path / code.name)
    shutil.copyfile(PUBLISHED / "tokenizer.model", tmp_path / "tokenizer.model")
    config = with_own_code(json.loads((folder / "tokenizer_config.json").read_text()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(str(tmp_path))
    prompt = TEMPLATES.get("internlm-xcomposer2")().messages2prompt(
        [{"role": "user", "content": "<IMAGE_TOKEN>请描述图中内容"}]
    )
    before, after = prompt.split("<IMAGE_TOKEN>")
    text = len(tokenizer.encode(before)) + len(tokenizer.encode(after, add_bos=False))
    assert text == catalogue.TEMPLATE_TOKENS + 4 == 147
    assert text + catalogue.find("vl-7b").image_tokens(640, 480) == 1372
