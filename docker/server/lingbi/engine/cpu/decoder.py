"""The language model on a CPU, computed by lingbi from the tensors that the folder's own code holds.

The remote code of the published folders differs in what it makes of positions, masks and caches: some rotate by
`position_ids`, some by the length of the cache, which is right for a whole prompt and for one token only. None of
that is relied on here. What all have in common, since the checkpoint's tensor names fix it, is the tree of modules:
`model.layers.N.{attention.{wqkv,wo},feed_forward.{w1,w2,w3}}` with PLoRA beside each matrix, and the norms. From
these the layers are computed as TurboMind computes them, and `agreement.py` holds the result to the folder's own code.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from lingbi.engine.cpu.cache import KvCache

# PLoRA's scale is 1 but for wqkv of 4khd: https://github.com/InternLM/lmdeploy, source_model/xomposer2.py.
TILED_WQKV_SCALE = 2.0


@dataclass(frozen=True)
class ImageLinear:
    """A matrix with PLoRA: tokens of images get a low-rank addition (up @ down), scaled."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @classmethod
    def of(cls, module: torch.nn.Module, scale: float = 1.0) -> "ImageLinear":
        """The matrix that a module of the remote code holds."""
        bias = getattr(module, "bias", None)
        return cls(module.weight, bias, module.Plora_A.weight, module.Plora_B.weight, scale)

    def __call__(self, x: torch.Tensor, image_rows: torch.Tensor | None) -> torch.Tensor:
        """x: [tokens, in]; image_rows: indices of the tokens of images, or None. Returns [tokens, out]."""
        out = F.linear(x, self.weight, self.bias)
        if image_rows is not None:
            out[image_rows] += F.linear(F.linear(x[image_rows], self.down), self.up) * self.scale
        return out


class Layer:
    """One decoder layer: grouped-query attention and SwiGLU, each behind a norm and around a residual."""

    def __init__(self, module: torch.nn.Module, shape: "Shape", wqkv_scale: float):
        attention, feed_forward = module.attention, module.feed_forward
        self.shape = shape
        self.attention_norm, self.ffn_norm = module.attention_norm, module.ffn_norm
        self.wqkv = ImageLinear.of(attention.wqkv, wqkv_scale)
        self.wo = ImageLinear.of(attention.wo)
        self.w1, self.w2, self.w3 = (ImageLinear.of(getattr(feed_forward, name)) for name in ("w1", "w2", "w3"))

    def __call__(
        self,
        x: torch.Tensor,
        rotation: "Rotation",
        mask: torch.Tensor | None,
        image_rows: torch.Tensor | None,
        cache: KvCache,
        number: int,
    ) -> torch.Tensor:
        """x: [tokens, hidden]; number: of this layer in the cache. Returns [tokens, hidden]."""
        x = x + self._attend(self.attention_norm(x), rotation, mask, image_rows, cache, number)
        normed = self.ffn_norm(x)
        gated = F.silu(self.w1(normed, image_rows)) * self.w3(normed, image_rows)
        return x + self.w2(gated, image_rows)

    def _attend(
        self,
        x: torch.Tensor,
        rotation: "Rotation",
        mask: torch.Tensor | None,
        image_rows: torch.Tensor | None,
        cache: KvCache,
        number: int,
    ) -> torch.Tensor:
        shape, tokens = self.shape, x.shape[0]
        # The rows of wqkv come by KV head: its query heads, its key, its value.
        qkv = self.wqkv(x, image_rows).view(tokens, shape.kv_heads, shape.group + 2, shape.head_dim)
        query = rotation(qkv[:, :, : shape.group].permute(1, 2, 0, 3))  # [kv heads, group, tokens, head]
        key = rotation(qkv[:, :, shape.group].transpose(0, 1))  # [kv heads, tokens, head]
        keys, values = cache.append(number, key, qkv[:, :, shape.group + 1].transpose(0, 1))
        flat = query.reshape(shape.kv_heads, shape.group * tokens, shape.head_dim)
        scores = torch.matmul(flat, keys.transpose(1, 2)) * shape.head_dim**-0.5
        if mask is not None:
            # The tokens before are seen by all: only the new ones among themselves are masked.
            new = scores.view(shape.kv_heads, shape.group, tokens, -1)[..., -tokens:]
            new.masked_fill_(mask, float("-inf"))
        weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype)
        out = torch.matmul(weights, values).view(shape.kv_heads * shape.group, tokens, shape.head_dim)
        return self.wo(out.transpose(0, 1).reshape(tokens, -1), image_rows)


@dataclass(frozen=True)
class Shape:
    """Heads of a layer: `group` query heads share each of `kv_heads` keys and values of `head_dim`."""

    kv_heads: int
    group: int
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """The heads that the configuration of a model's own code tells."""
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
        return cls(kv_heads, heads // kv_heads, config.hidden_size // heads)


class Rotation:
    """Rotary position embedding of tokens from `start` on: pairs (i, i + head_dim / 2) turn with the position."""

    def __init__(self, start: int, tokens: int, head_dim: int, theta: float, dtype: torch.dtype):
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        angles = torch.arange(start, start + tokens, dtype=torch.float32)[:, None] * theta**-exponents
        angles = torch.cat((angles, angles), dim=-1)
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., tokens, head_dim]."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin


class Decoder:
    """All layers over the tensors of a loaded model; holds no state of its own between calls."""

    def __init__(self, model: torch.nn.Module, is_tiled: bool):
        self.shape = Shape.of(model.config)
        self.theta = float(model.config.rope_theta)
        scale = TILED_WQKV_SCALE if is_tiled else 1.0
        self.layers = [Layer(module, self.shape, scale) for module in model.model.layers]
        self.norm, self.output = model.model.norm, model.output

    def new_cache(self) -> KvCache:
        """An empty cache for one sequence."""
        return KvCache(len(self.layers), self.shape.kv_heads, self.shape.head_dim, self.output.weight.dtype)

    def __call__(self, embeddings: torch.Tensor, image_mask: torch.Tensor, cache: KvCache) -> torch.Tensor:
        """Logits [vocabulary] after the last of some new tokens, which the cache holds afterwards.

        embeddings: [tokens, hidden]; image_mask: bool [tokens], True where a token is an image's.
        """
        tokens, dtype = embeddings.shape[0], embeddings.dtype
        rotation = Rotation(cache.tokens, tokens, self.shape.head_dim, self.theta, dtype)
        image_rows = image_mask.nonzero().squeeze(1) if bool(image_mask.any()) else None
        mask = later_tokens(tokens) if tokens > 1 else None
        x = embeddings
        for number, layer in enumerate(self.layers):
            x = layer(x, rotation, mask, image_rows, cache, number)
        cache.advance(tokens)
        return self.output(self.norm(x[-1:]))[0]


def later_tokens(tokens: int) -> torch.Tensor:
    """Bool [tokens, tokens], True where a new token may not look: at those after it."""
    columns = torch.arange(tokens)
    return columns[None] > columns[:, None]
