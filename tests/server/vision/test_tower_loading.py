"""The GPU's tower holds what lmdeploy's own loader gives, in half precision; loading itself needs no GPU."""

import shutil

import pytest
import torch

from lingbi.errors import StartError
from tests.conftest import DEMO


@pytest.fixture(scope="module")
def towers():
    from lmdeploy.vl.model.xcomposer2 import Xcomposer2VisionModel

    from lingbi.vision.tower_loading import load_tower

    return load_tower(str(DEMO)), Xcomposer2VisionModel(str(DEMO), device="cpu").model


def test_every_tensor_that_is_not_rearranged_is_lmdeploys(towers):
    ours, theirs = (tower.state_dict() for tower in towers)
    rearranged = ("self_attn", ".mlp.", "post_layernorm")
    same = [name for name in ours if not any(part in name for part in rearranged)]
    assert len(same) > 5 and set(same) == {name for name in theirs if not any(part in name for part in rearranged)}
    for name in same:
        assert torch.equal(ours[name], theirs[name].half() if theirs[name].is_floating_point() else theirs[name]), name
    assert all(not value.is_floating_point() or value.dtype == torch.half for value in ours.values())


def test_each_layer_computes_what_lmdeploys_computes(towers):
    layers = [tower.float().vit.vision_tower.vision_model.encoder.layers for tower in towers]
    width = layers[0][0].layer_norm1.weight.shape[0]
    for ours, theirs in zip(*layers, strict=True):
        x = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours.mlp(x), theirs.mlp(x), rtol=1e-2, atol=1e-2)
        parts = [getattr(theirs.self_attn, f"{name}_proj")(x) for name in "qkv"]
        torch.testing.assert_close(ours.self_attn.qkv_proj(x), torch.cat(parts, dim=1), rtol=1e-2, atol=1e-2)


def test_a_folder_without_some_vision_tensor_is_refused(tmp_path):
    from lingbi.vision.tower_loading import load_tower

    folder = shutil.copytree(DEMO, tmp_path / "model")
    tensors = torch.load(folder / "pytorch_model.bin")
    name = next(name for name in sorted(tensors) if "vision_proj" in name)
    del tensors[name]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(StartError, match=f"lacks 1 vision tensors, {name} first; fetch the model again"):
        load_tower(str(folder))
