"""The vision tower of a model folder, loaded in half precision from mapped files and arranged for a GPU."""

import warnings
from collections.abc import Callable
from typing import cast

import torch
from accelerate import init_empty_weights
from lmdeploy.vl.model.utils import add_sys_path
from lmdeploy.vl.model.xcomposer2 import init_empty_vit
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import no_init_weights

from lingbi.errors import StartError
from lingbi.model.checkpoint import read_mapped
from lingbi.model.folder import inspect
from lingbi.vision.clip import folded_activation, packed_projections

# The tower creates these itself, and no checkpoint holds them; the pooled class token is not used.
UNUSED = ("post_layernorm", "position_ids")


def load_tower(model_path: str) -> torch.nn.Module:
    """A folder's model without its language model, in half precision, on the CPU. Raises StartError.

    It takes the steps of lmdeploy's Xcomposer2VisionModel.build_model, but reads the vision tensors alone, from mapped
    files. lmdeploy reads every shard, and leaves the tower in float32, at twice the size, because it creates the tower
    after its own `half()`.
    """
    model = _empty_model(model_path)
    with add_sys_path(model_path), init_empty_vit(), no_init_weights():
        model.vit.load_model()
        model.vit.resize_pos()
    _fill(model, model_path)
    model.half()
    layers = model.vit.vision_tower.vision_model.encoder.layers
    packed_projections(layers)
    folded_activation(layers)
    return model


def tile_cutter(model_path: str) -> Callable[..., Image.Image]:
    """`HD_transform(image, hd_num)` of a tiled model's own code: the image resized and padded to whole tiles."""
    with add_sys_path(model_path):
        from ixc_utils import HD_transform

    return cast(Callable[..., Image.Image], HD_transform)


def _empty_model(model_path: str) -> torch.nn.Module:
    """The model's vision parts with memory that nothing has been written to yet."""
    with init_empty_weights(), no_init_weights(), init_empty_vit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=True)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=True).half()
        del model.model
        del model.output
    return cast(torch.nn.Module, model.to_empty(device="cpu"))


def _fill(model: torch.nn.Module, model_path: str) -> None:
    """Copy the model's tensors from the folder's shards. Raises StartError where the folder lacks one."""
    absent = set(model.state_dict())
    for shard in inspect(model_path).shards:
        tensors = read_mapped(shard)
        found = {name: tensors[name] for name in absent & set(tensors)}
        model.load_state_dict(found, strict=False)
        absent -= set(found)
    needed = sorted(name for name in absent if not any(part in name for part in UNUSED))
    if needed:
        raise StartError(f"{model_path} lacks {len(needed)} vision tensors, {needed[0]} first; fetch the model again")
