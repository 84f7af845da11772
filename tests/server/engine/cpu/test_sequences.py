"""Whose turn it is: many answers of one key take no more of the engine than the only one of another."""

import random
from collections import Counter

import pytest
import torch

from lingbi.engine.cpu.sampling import DEFAULT_SEED, Sampling
from lingbi.engine.cpu.sequences import Sequence, round_of
from lingbi.turns import Asker
from tests.server.engine.cpu.test_scheduler import greedy

A, B, PAGE = Asker("a"), Asker("b"), Asker("page", 4 * Asker().weight)


def running(asker: Asker, count: int) -> list[Sequence]:
    return [
        Sequence(
            session_id=number,
            prompt=None,
            image_mask=torch.zeros(0, dtype=torch.bool),
            ids=[],
            sampling=Sampling.from_config(greedy(), 2),
            max_new_tokens=1,
            emit=print,
            rng=random.Random(DEFAULT_SEED),
            cache=None,
            asker=asker,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("of_each", "turns"),
    [
        ({A: 8}, {"a": 1}),
        ({A: 8, B: 1}, {"a": 1, "b": 1}),
        ({A: 8, PAGE: 6}, {"a": 1, "page": 4}),
        ({A: 8, PAGE: 2}, {"a": 1, "page": 2}),
        ({PAGE: 3}, {"page": 1}),
        ({}, {}),
    ],
)
def test_each_asker_has_turns_by_its_weight(of_each, turns):
    active = [sequence for asker, count in of_each.items() for sequence in running(asker, count)]
    assert Counter(sequence.asker.name for sequence in round_of(active)) == turns


def test_those_that_have_waited_longest_come_first():
    first, second, third = running(A, 3)
    assert round_of([second, third, first]) == [second]


def test_a_cancelled_answer_ends_in_the_next_round():
    many = running(A, 8)
    many[5].cancelled = True
    assert round_of(many) == [many[0], many[5]]
