"""Two named corrections of transformers' CLIP for GPUs; on a CPU its own code runs.

Both are used by whatever remote code builds a CLIPVisionModel, published or ours.
"""

import torch
import torch.nn.functional as F
import wrapt


def fused_attention(module) -> None:
    """Attention in one kernel: transformers 4.40 writes all scores [heads, tokens, tokens] to memory four times."""

    @wrapt.patch_function_wrapper(module, "CLIPAttention.forward")
    def forward(wrapped, instance, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        if not hidden.is_cuda or len(args) > 1 or any(v is not None and v is not False for v in _masks(kwargs)):
            return wrapped(*args, **kwargs)
        batch, tokens, width = hidden.shape

        def heads(projection):
            return projection(hidden).view(batch, tokens, instance.num_heads, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(*map(heads, (instance.q_proj, instance.k_proj, instance.v_proj)))
        return instance.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width)), None


def _masks(kwargs: dict):
    return (value for name, value in kwargs.items() if name != "hidden_states")


def patches_by_matrix(module) -> None:
    """Patch embedding as one matrix product, which it is: kernel and stride of the convolution are equal.

    So cuDNN is never loaded for it, nor its memory taken.
    """

    @wrapt.patch_function_wrapper(module, "CLIPVisionEmbeddings.forward")
    def forward(wrapped, instance, args, kwargs):
        pixels = args[0] if args else kwargs["pixel_values"]
        if not pixels.is_cuda:
            return wrapped(*args, **kwargs)
        weight = instance.patch_embedding.weight
        patches = F.unfold(pixels.to(weight.dtype), instance.patch_size, stride=instance.patch_size)
        embedded = F.linear(patches.transpose(1, 2), weight.flatten(1))
        first = instance.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat((first, embedded), dim=1) + instance.position_embedding(instance.position_ids)
