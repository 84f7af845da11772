"""Two engines that differ by rounding are told from two that compute something else."""

import random

import pytest

from tests.tensor_parallel.comparison import compare, first_difference, is_same


def places(seed: int, noise: float = 0.0) -> list[dict[int, float]]:
    chance, shaking = random.Random(seed), random.Random(noise)
    tokens = [chance.sample(range(1000), 20) for _ in range(50)]
    return [{token: -0.1 * rank + shaking.gauss(0, noise) for rank, token in enumerate(found)} for found in tokens]


def test_rounding_is_the_same_and_another_model_is_not():
    own = compare(places(1), places(1, 0.01))
    assert is_same(compare(places(1), places(1, 0.02)), own)
    assert is_same(compare(places(1), places(1)), compare(places(1), places(1)))
    for other in (places(2), places(1, 0.5), [dict(reversed(list(place.items())[:5])) for place in places(3)]):
        assert not is_same(compare(places(1), other), own)


def test_what_is_found_of_the_likeliest_tokens():
    found = compare([{1: -0.1, 2: -0.2}, {1: -0.1, 2: -0.3}], [{1: -0.15, 2: -0.2}, {1: -0.4, 2: -0.3}])
    assert (found.places, found.same, found.shared) == (2, 0.5, 1.0)
    assert found.largest == pytest.approx(0.3) and found.gap == pytest.approx(0.2)
    with pytest.raises(ValueError):
        compare([{1: 0.0}], [])


def test_where_answers_part():
    assert first_difference([1, 2, 3], [1, 2, 4]) == 2
    assert first_difference([1, 2], [1, 2, 4]) is None
