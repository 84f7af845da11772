"""Sampling follows TurboMind's rules."""

import random
from collections import Counter

import pytest
import torch
from lmdeploy.messages import EngineGenerationConfig

from lingbi.engine.cpu.sampling import Sampling, next_token

LOGITS = torch.tensor([0.0, 1.0, 2.0, 3.0])


def sampling(**changes) -> Sampling:
    config = EngineGenerationConfig(**({"top_k": 0, "top_p": 1.0, "temperature": 1.0} | changes))
    return Sampling.from_config(config, eos_id=0)


def shares(seen=(), made=0, draws=4000, **changes) -> dict:
    rng = random.Random(1)
    rules = sampling(**changes)
    drawn = Counter(
        next_token(LOGITS.clone(), rules, torch.tensor(list(seen), dtype=torch.long), made, rng)[0]
        for _ in range(draws)
    )
    return {token: count / draws for token, count in drawn.items()}


def test_plain_sampling_has_the_softmax_distribution():
    expected = LOGITS.softmax(0)
    assert all(abs(shares()[token] - expected[token]) < 0.03 for token in range(4))


def test_top_k_one_is_greedy():
    assert shares(top_k=1, draws=50) == {3: 1.0}


def test_temperature_zero_is_greedy():
    assert shares(temperature=0.0, draws=50) == {3: 1.0}


def test_top_k_keeps_the_best():
    assert set(shares(top_k=2)) == {2, 3}


def test_top_p_draws_from_the_first_part_of_the_mass():
    # The best token has 64 % of the mass: a point in the first 60 % always falls on it.
    assert shares(top_p=0.6, draws=200) == {3: 1.0}
    assert set(shares(top_p=0.8)) == {2, 3}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    assert set(shares(seen=[3], repetition_penalty=100.0, top_k=1, draws=10)) == {2}
    negative = torch.tensor([-1.0, -1.1])
    rules = sampling(repetition_penalty=2.0, top_k=1)
    assert next_token(negative, rules, torch.tensor([0]), 0, random.Random(0))[0] == 1


def test_stop_tokens_are_banned_until_the_minimum():
    options = {"stop_words": [3], "min_new_tokens": 2, "top_k": 1, "draws": 5}
    assert set(shares(made=1, **options)) == {2}
    assert set(shares(made=2, **options)) == {3}


def test_ignore_eos_stops_at_nothing_and_never_gives_eos():
    rules = sampling(ignore_eos=True, stop_words=[3])
    assert rules.stop_ids == frozenset() and 0 in rules.bad_ids


def test_equal_seeds_give_equal_answers():
    rules = sampling()
    first, second = (
        [next_token(LOGITS.clone(), rules, torch.tensor([0]), 0, rng)[0] for _ in range(30)]
        for rng in (random.Random(7), random.Random(7))
    )
    assert first == second


def test_log_probabilities_hold_the_chosen_token():
    token, table = next_token(LOGITS.clone(), sampling(logprobs=2, top_k=1), torch.tensor([0]), 0, random.Random(0))
    assert token == 3 and set(table) == {2, 3}
    assert table[3] == pytest.approx(LOGITS.log_softmax(0)[3].item(), abs=1e-4)
