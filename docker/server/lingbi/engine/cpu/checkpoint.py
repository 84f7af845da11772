"""Loads a model folder on the CPU once: the language model and the vision tower are one object."""

from functools import lru_cache

import torch
from accelerate import init_empty_weights
from lmdeploy.vl.model.utils import add_sys_path
from lmdeploy.vl.model.xcomposer2 import Xcomposer2VisionModel, init_empty_vit
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM

from lingbi.errors import StartError
from lingbi.model.checkpoint import read_mapped
from lingbi.model.folder import inspect
from lingbi.model.host_memory import uses_float32


@lru_cache(maxsize=1)
def load_checkpoint(model_path: str) -> torch.nn.Module:
    """The model of a folder, through its own remote code, on the CPU.

    If the model stays bfloat16, its shards are memory-mapped, not copied: 1.8B parameters need little more memory
    than their file. Raises StartError if tensors are missing.
    """
    folder = inspect(model_path)
    dtype = torch.float32 if uses_float32(folder) else torch.bfloat16
    model = _skeleton(model_path)
    for shard in folder.shards:
        model.load_state_dict(read_mapped(shard), strict=False, assign=True)
    absent = sorted(name for name, value in model.named_parameters() if value.is_meta)
    if absent:
        raise StartError(f"{folder.path} lacks {len(absent)} tensors, {absent[0]} first; fetch the model again")
    return model.to(dtype).eval().requires_grad_(False)


def _skeleton(model_path: str) -> torch.nn.Module:
    """The model without weights; only the tower's tables that no checkpoint holds are filled."""
    config = AutoConfig.from_pretrained(model_path, trust_remote_code=True)
    config.attn_implementation = "eager"  # 4khd's config asks for flash attention, which only runs on CUDA
    with init_empty_weights(), init_empty_vit():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=True, attn_implementation="eager")
    with add_sys_path(model_path), init_empty_vit():
        model.vit.load_model()
        model.vit.resize_pos()
    return model


class CpuVisionModel(Xcomposer2VisionModel):  # type: ignore[misc]  # lmdeploy has no types
    """lmdeploy's image processing (resize, normalise, tower, projection) with the model that the CPU engine has loaded.

    hd_num: the most tiles that 4khd cuts an image into.
    """

    max_batch = 4  # a larger batch would only delay its first image

    def __init__(self, model_path: str, hd_num: int):
        self.hd_num = hd_num
        super().__init__(model_path, device="cpu")

    def build_model(self) -> None:
        self.model = load_checkpoint(self.model_path)
        self.model.vision_proj.register_forward_pre_hook(_match_dtype)
        self._forward_func = self._forward_7b
        if inspect(self.model_path).is_tiled:
            with add_sys_path(self.model_path):
                from ixc_utils import HD_transform
            self.HD_transform = HD_transform
            self._forward_func = self._forward_tiled

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image as `forward` takes it; 4khd's own code does not convert it to RGB."""
        return image.convert("RGB")

    def forward(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """Features of RGB images: a list of float32 tensors [tokens, hidden] (numpy has no bfloat16)."""
        return [features.float() for features in super().forward(images)]

    def _forward_tiled(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """Does what lmdeploy does, with hd_num in place of its limit of 25 tiles."""
        return [self._tiled(self.HD_transform(image, hd_num=self.hd_num)) for image in images]

    def _tiled(self, image: Image.Image) -> torch.Tensor:
        """Features [tokens, hidden] of an image whose sides are multiples of a tile's."""
        pixels = self.model.vis_processor(image)[None].half()
        embedded, _ = self.model.vit([pixels], self.model.plora_glb_GN, self.model.plora_sub_GN)
        return self.model.vision_proj(embedded).squeeze()


def _match_dtype(projection: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
    # lmdeploy passes the image in half precision and the tower answers in it, which the projection on a CPU does not accept.
    weight = next(projection.parameters())
    return (inputs[0].to(weight.dtype),)
