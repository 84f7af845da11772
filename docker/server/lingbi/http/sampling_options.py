"""Translates a request's sampling options into lmdeploy's."""

import random
from typing import TypeVar

from lmdeploy.messages import EngineGenerationConfig

from lingbi.http.protocol.requests import Sampled

GREEDY = 1
LMDEPLOY_MAX_TEMPERATURE = 1.0
SEED_BITS = 64
Value = TypeVar("Value")


def engine_options(
    request: Sampled, max_new_tokens: int, stop_ids: list[int], logprobs: int | None
) -> EngineGenerationConfig:
    """The lmdeploy options for an answer, without the request's own stop words (see stop_words.py)."""
    temperature = _or(request.temperature, 0.7)
    top_p = _or(request.top_p, 1.0)
    is_greedy = temperature == 0 or top_p == 0
    options = EngineGenerationConfig(
        max_new_tokens=max_new_tokens,
        top_k=GREEDY if is_greedy else max(_or(request.top_k, 40), 0),  # vLLM's -1 is lmdeploy's 0: all tokens
        top_p=1.0 if is_greedy else top_p,
        temperature=min(temperature, LMDEPLOY_MAX_TEMPERATURE) if temperature else LMDEPLOY_MAX_TEMPERATURE,
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        ignore_eos=bool(request.ignore_eos),
        skip_special_tokens=_or(request.skip_special_tokens, True),
        stop_words=stop_ids,
        logprobs=logprobs,
        random_seed=_seed(request.seed),
    )
    if temperature > LMDEPLOY_MAX_TEMPERATURE:
        options.temperature = temperature  # the engines accept it; only lmdeploy's own check rejects it
    return options


def stop_words(request: Sampled) -> tuple[str, ...]:
    """The stop words of a request, as a tuple."""
    return tuple(request.stop or ())


def _or(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def _seed(seed: int | None) -> int:
    return random.getrandbits(SEED_BITS) if seed is None else seed % (1 << SEED_BITS)
