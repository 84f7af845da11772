"""Named corrections of transformers' CLIP for GPUs; on a CPU, CLIP's own code runs.

They apply to every CLIPVisionModel, whether published remote code or ours creates it. Two of them replace code, and two
rearrange the weights of a loaded tower.
"""

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
import wrapt
from transformers.activations import QuickGELUActivation

# The factor in CLIP's activation: x * sigmoid(QUICK_GELU * x).
QUICK_GELU = 1.702
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def fused_attention(module: ModuleType) -> None:
    """Compute attention in one kernel: transformers 4.40 writes all scores [heads, tokens, tokens] to memory four times."""

    def forward(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if not hidden.is_cuda or len(args) > 1 or any(v is not None and v is not False for v in _masks(kwargs)):
            return wrapped(*args, **kwargs)
        batch, tokens, width = hidden.shape
        if hasattr(instance, "qkv_proj"):
            projected = instance.qkv_proj(hidden).split(width, dim=2)
        else:
            projected = (getattr(instance, name)(hidden) for name in PROJECTIONS)
        mixed = F.scaled_dot_product_attention(
            *(part.view(batch, tokens, instance.num_heads, -1).transpose(1, 2) for part in projected)
        )
        return instance.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width)), None

    wrapt.wrap_function_wrapper(module, "CLIPAttention.forward", forward)


def _masks(kwargs: dict[str, Any]) -> Iterator[Any]:
    return (value for name, value in kwargs.items() if name != "hidden_states")


def patches_by_matrix(module: ModuleType) -> None:
    """Compute the patch embedding as one matrix product, which is the same because the convolution's kernel and stride
    are equal. This way cuDNN is never loaded and takes no memory.
    """

    def forward(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pixels = args[0] if args else kwargs["pixel_values"]
        if not pixels.is_cuda:
            return wrapped(*args, **kwargs)
        weight = instance.patch_embedding.weight
        patches = F.unfold(pixels.to(weight.dtype), instance.patch_size, stride=instance.patch_size)
        embedded = F.linear(patches.transpose(1, 2), weight.flatten(1))
        first = instance.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat((first, embedded), dim=1) + instance.position_embedding(instance.position_ids)

    wrapt.wrap_function_wrapper(module, "CLIPVisionEmbeddings.forward", forward)


def packed_projections(layers: Iterable[Any]) -> None:
    """Compute query, key and value of each layer as one product, which keeps more of a GPU busy than three do."""
    for attention in (layer.self_attn for layer in layers):
        parts = [getattr(attention, name) for name in PROJECTIONS]
        packed = torch.nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), device="meta")
        packed.weight, packed.bias = (
            torch.nn.Parameter(torch.cat([getattr(part, name).data for part in parts]), requires_grad=False)
            for name in ("weight", "bias")
        )
        attention.qkv_proj = packed
        for name in PROJECTIONS:
            delattr(attention, name)


def folded_activation(layers: Iterable[Any]) -> None:
    """Compute the activation in one kernel; transformers runs three, and each reads and writes memory.

    x * sigmoid(c * x) equals silu(c * x) / c, so the weights before it are multiplied by c and those after it divided.
    """
    for mlp in (layer.mlp for layer in layers):
        if isinstance(mlp.activation_fn, QuickGELUActivation):
            for parameter, factor in (
                (mlp.fc1.weight, QUICK_GELU),
                (mlp.fc1.bias, QUICK_GELU),
                (mlp.fc2.weight, 1 / QUICK_GELU),
            ):
                parameter.data = (parameter.data.float() * factor).to(parameter.dtype)
            mlp.activation_fn = torch.nn.SiLU()
