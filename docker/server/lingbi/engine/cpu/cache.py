"""The KV cache of one sequence on a CPU: it grows in steps, is not copied for each token, and is cut by lowering a count."""

import torch

GROWTH_TOKENS = 512  # a cache grows by this much, or by a quarter of its size if that is more


class KvCache:
    """Keys and values of every layer, each [kv heads, room, head_dim], of which the first `tokens` are held."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype):
        self.tokens = 0
        self._layers = [
            (torch.empty(kv_heads, 0, head_dim, dtype=dtype), torch.empty(kv_heads, 0, head_dim, dtype=dtype))
            for _ in range(layers)
        ]

    @property
    def room(self) -> int:
        """Tokens that fit without growing."""
        return self._layers[0][0].shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(part.nbytes for layer in self._layers for part in layer)

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens of a layer behind those held; returns (keys, values) of all, [kv heads, all tokens, head_dim].

        The new tokens count as held only after `advance`, when every layer has them.
        """
        end = self.tokens + keys.shape[1]
        if end > self._layers[layer][0].shape[1]:
            old_keys, old_values = self._layers[layer]
            self._layers[layer] = (_grown(old_keys, self.tokens, end), _grown(old_values, self.tokens, end))
        held_keys, held_values = self._layers[layer]
        held_keys[:, self.tokens : end] = keys
        held_values[:, self.tokens : end] = values
        return held_keys[:, :end], held_values[:, :end]

    def advance(self, tokens: int) -> None:
        """Count these tokens as held; every layer must have appended them."""
        self.tokens += tokens

    def cut(self, tokens: int) -> None:
        """Keep only the first tokens."""
        self.tokens = min(self.tokens, tokens)


# What a session holds after its answer: the cache, and the ids of prompt and answer. The last token of an answer is not in
# the cache, since nothing has been computed after it.
Kept = tuple[KvCache, list[int]]


def step_back(kept: Kept, step: int) -> Kept:
    """What a session has kept, cut to its first `step` tokens; a step of 0 keeps all. Raises ValueError for more than it has."""
    cache, ids = kept
    if step > len(ids):
        raise ValueError(f"cannot go on after {step} tokens of a session that has {len(ids)}")
    if not step:
        return kept
    cache.cut(step)
    return cache, ids[:step]


def _grown(part: torch.Tensor, held: int, needed: int) -> torch.Tensor:
    """A larger tensor with the tokens held so far."""
    kv_heads, room, head_dim = part.shape
    larger = torch.empty(kv_heads, max(needed, room + max(GROWTH_TOKENS, room // 4)), head_dim, dtype=part.dtype)
    larger[:, :held] = part[:, :held]
    return larger
