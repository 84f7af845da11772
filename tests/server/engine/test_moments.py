"""Bound answers ask for the most candidates together, the further apart the more of them there are."""

import pytest

from lingbi.engine.moments import QUESTION_S, SHARE, STEP_S, until_next

NOW, SOON_S = 1234.5678, 1e-4


def next_moment(askers: int, now: float) -> float:
    return now + until_next(askers, now)


@pytest.mark.parametrize("askers", [1, 2, 8, 32])
def test_all_who_come_between_two_moments_ask_at_the_next(askers):
    first = next_moment(askers, NOW)
    second = next_moment(askers, first + SOON_S)
    for part in (0.2, 0.5, 0.8):
        assert next_moment(askers, first + part * (second - first)) == pytest.approx(second)


@pytest.mark.parametrize("askers", [1, 2, 8, 32])
def test_what_they_ask_takes_its_share_of_the_time(askers):
    first = next_moment(askers, NOW)
    second = next_moment(askers, first + SOON_S)
    assert (STEP_S + askers * QUESTION_S) / (second - first) == pytest.approx(SHARE)
