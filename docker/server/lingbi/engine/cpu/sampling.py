"""Chooses the next token with TurboMind's rules, so that parameters mean the same on both engines.

The order is that of TurboMind 0.4.1's dynamic decoding: temperature, repetition penalty, banned tokens, top-k, top-p.
The random numbers are Python's own, so a seed repeats an answer on the same engine but not across engines.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch

TEMPERATURE_FLOOR = 1e-6  # TurboMind divides by the temperature plus this
DEFAULT_SEED = 0


@dataclass(frozen=True)
class Sampling:
    """Parameters of one answer, as lmdeploy's EngineGenerationConfig names them."""

    top_k: int
    top_p: float
    temperature: float
    repetition_penalty: float
    min_new_tokens: int
    stop_ids: frozenset[int]
    bad_ids: frozenset[int]
    logprobs: int

    @classmethod
    def from_config(cls, config: Any, eos_id: int) -> "Sampling":
        bad = set(config.bad_words or ())
        stop = set() if config.ignore_eos else {eos_id, *(config.stop_words or ())}
        if config.ignore_eos:
            bad.add(eos_id)
        return cls(
            top_k=config.top_k,
            top_p=config.top_p,
            temperature=config.temperature,
            repetition_penalty=config.repetition_penalty,
            min_new_tokens=config.min_new_tokens or 0,
            stop_ids=frozenset(stop),
            bad_ids=frozenset(bad),
            logprobs=config.logprobs or 0,
        )


def next_token(
    logits: torch.Tensor, sampling: Sampling, seen: torch.Tensor, made: int, rng: random.Random
) -> tuple[int, dict[int, float] | None]:
    """Choose one token.

    logits: [vocabulary], any float type; seen: ids of prompt and answer so far; made: tokens
    answered so far. Returns (token id, {token id: log probability} or None).
    """
    scores = logits.float() / (sampling.temperature + TEMPERATURE_FLOOR)
    if sampling.repetition_penalty != 1.0:
        scores = _penalise(scores, seen, sampling.repetition_penalty)
    banned = sampling.bad_ids | (sampling.stop_ids if made < sampling.min_new_tokens else frozenset())
    if banned:
        scores[list(banned)] = float("-inf")
    token = _draw(scores, sampling, rng)
    return token, _log_probabilities(scores, token, sampling.logprobs)


def _penalise(scores: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    values = scores[seen]
    scores[seen] = torch.where(values < 0, values * penalty, values / penalty)
    return scores


def _draw(scores: torch.Tensor, sampling: Sampling, rng: random.Random) -> int:
    if sampling.top_k == 1:
        return int(scores.argmax())
    count = sampling.top_k or scores.numel()
    best, ids = scores.topk(min(count, scores.numel()))
    mass = best.softmax(0).cumsum(0)
    # The token in which a point drawn from the first top_p of the mass falls.
    place = int(torch.searchsorted(mass, rng.random() * sampling.top_p))
    return int(ids[min(place, ids.numel() - 1)])


def _log_probabilities(scores: torch.Tensor, token: int, count: int) -> dict[int, float] | None:
    if not count:
        return None
    table = scores.log_softmax(0)
    best, ids = table.topk(count)
    return {**dict(zip(ids.tolist(), best.tolist(), strict=False)), token: float(table[token])}
