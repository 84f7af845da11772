"""The language model: InternLM2 with PLoRA, low-rank additions that only picture tokens pass through.

Tensor names are those of the published checkpoints. `picture_rows` below are the indices of the picture tokens among
all batch x tokens rows, or None where there is none (every step of decoding).
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

PLORA_RANK = 256


class PLoRALinear(nn.Linear):
    """y = W x for all tokens; picture tokens get scale * B(A(x)) on top."""

    def __init__(self, in_features, out_features, rank=PLORA_RANK, scale=1.0):
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale
        self.Plora_A = nn.Linear(in_features, rank, bias=False)
        self.Plora_B = nn.Linear(rank, out_features, bias=False)

    def forward(self, x, picture_rows=None):
        y = F.linear(x, self.weight)
        if picture_rows is None:
            return y
        picture = x.reshape(-1, self.in_features).index_select(0, picture_rows)
        addition = self.Plora_B(self.Plora_A(picture)) * self.scale
        return y.reshape(-1, self.out_features).index_add(0, picture_rows, addition.to(y.dtype)).view_as(y)


class RMSNorm(nn.Module):
    """Scales to a root mean square of one, computed in fp32."""

    def __init__(self, hidden_size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x):
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return x32.to(x.dtype) * self.weight


def rotary_table(positions, head_dim, theta, dtype):
    """cos and sin, each [batch, 1, tokens, head_dim], for `positions` [batch, tokens]."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x, cos, sin):
    """Rotates the pairs (i, i + head_dim / 2) of x [batch, heads, tokens, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention. The rows of wqkv come by kv head: its query heads, its key, its value."""

    def __init__(self, config):
        super().__init__()
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        rank, scale = config.wqkv_plora
        rows = (config.num_attention_heads + 2 * self.kv_heads) * self.head_dim
        self.wqkv = PLoRALinear(config.hidden_size, rows, rank, scale)
        self.wo = PLoRALinear(config.num_attention_heads * self.head_dim, config.hidden_size)

    def forward(self, x, cos, sin, mask, is_causal, past, picture_rows):
        batch, tokens, _ = x.shape
        qkv = self.wqkv(x, picture_rows).view(batch, tokens, self.kv_heads, self.group + 2, self.head_dim)
        query = qkv[..., : self.group, :].flatten(2, 3).transpose(1, 2)
        query = rotate(query, cos, sin)
        key = rotate(qkv[..., self.group, :].transpose(1, 2), cos, sin)
        value = qkv[..., self.group + 1, :].transpose(1, 2)
        if past is not None:
            key = torch.cat((past[0], key), dim=2)
            value = torch.cat((past[1], value), dim=2)
        out = F.scaled_dot_product_attention(
            query, self._for_each_query(key), self._for_each_query(value), attn_mask=mask, is_causal=is_causal
        )
        return self.wo(out.transpose(1, 2).reshape(batch, tokens, -1), picture_rows), (key, value)

    def _for_each_query(self, x):
        return x if self.group == 1 else x.repeat_interleave(self.group, dim=1)


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config):
        super().__init__()
        self.w1 = PLoRALinear(config.hidden_size, config.intermediate_size)
        self.w3 = PLoRALinear(config.hidden_size, config.intermediate_size)
        self.w2 = PLoRALinear(config.intermediate_size, config.hidden_size)

    def forward(self, x, picture_rows):
        return self.w2(F.silu(self.w1(x, picture_rows)) * self.w3(x, picture_rows), picture_rows)


class DecoderLayer(nn.Module):
    """Attention and feed forward, each behind a norm and around a residual."""

    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, cos, sin, mask, is_causal, past, picture_rows):
        attended, present = self.attention(self.attention_norm(x), cos, sin, mask, is_causal, past, picture_rows)
        x = x + attended
        return x + self.feed_forward(self.ffn_norm(x), picture_rows), present


class InternLM2Model(nn.Module):
    """Token embeddings, decoder layers, final norm."""

    def __init__(self, config):
        super().__init__()
        self.theta = config.rope_theta
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if config.tie_plora:
            self._tie_plora()

    def _tie_plora(self):
        """Lets all layers use the first one's additions: the checkpoint file holds them once, under every layer's names."""
        first = dict(self.layers[0].named_modules())
        for layer in self.layers[1:]:
            for name, linear in layer.named_modules():
                if isinstance(linear, PLoRALinear):
                    linear.Plora_A, linear.Plora_B = first[name].Plora_A, first[name].Plora_B

    def forward(self, inputs_embeds, im_mask=None, past_key_values=None, attention_mask=None, position_ids=None):
        """Runs the layers over new tokens.

        Args:
            inputs_embeds: [batch, tokens, hidden].
            im_mask: bool [batch, tokens], True at picture tokens; None where there is none.
            past_key_values: per layer (key, value), each [batch, kv heads, past tokens, head_dim].
            attention_mask: [batch, past + new tokens], 0 at padding; None where there is none.
            position_ids: [batch, tokens]; by default counted over the unpadded tokens.
        """
        batch, tokens, _ = inputs_embeds.shape
        n_past = 0 if past_key_values is None else past_key_values[0][0].shape[2]
        padded = attention_mask is not None and not bool(attention_mask.all())
        if position_ids is None:
            position_ids = self._positions(attention_mask if padded else None, n_past, inputs_embeds)
        cos, sin = rotary_table(position_ids, self.head_dim, self.theta, inputs_embeds.dtype)
        is_causal = not padded and n_past == 0 and tokens > 1
        mask = None
        if padded or (n_past and tokens > 1):
            mask = self._mask(attention_mask if padded else None, n_past, tokens, inputs_embeds.device)
        picture_rows = None
        if im_mask is not None and bool(im_mask.any()):
            picture_rows = im_mask.reshape(-1).nonzero().squeeze(1)
        x, presents = inputs_embeds, []
        for i, layer in enumerate(self.layers):
            past = None if past_key_values is None else past_key_values[i]
            x, present = layer(x, cos, sin, mask, is_causal, past, picture_rows)
            presents.append(present)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=tuple(presents))

    @staticmethod
    def _positions(attention_mask, n_past, inputs_embeds):
        tokens = inputs_embeds.shape[1]
        if attention_mask is None:
            return torch.arange(n_past, n_past + tokens, device=inputs_embeds.device)[None]
        return (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, n_past:]

    @staticmethod
    def _mask(attention_mask, n_past, tokens, device):
        """Bool, True where attention is allowed, broadcastable to [batch, heads, tokens, past + tokens]."""
        columns = torch.arange(n_past + tokens, device=device)
        rows = columns[n_past:, None]
        allowed = (columns[None] <= rows)[None, None]
        if attention_mask is None:
            return allowed
        # a padded row sees itself, so that no softmax is over nothing
        return (allowed & attention_mask.bool()[:, None, None]) | (columns[None] == rows)[None, None]
