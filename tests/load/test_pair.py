"""What tests.load.pair makes of its rounds: which goal is reached, and which is not."""

import pytest

from tests.load.pair import rows


def found(gateway_req_s: float, through_ms: float, kept: float) -> dict:
    """Results of two rounds, of which the one worker gave 20 requests/s and a first token after 20 ms."""
    rounds = {
        "gateway": [{"req_s": gateway_req_s}] * 2,
        "one": [{"req_s": 20.0}] * 2,
        "both": [{"req_s": 40.0}] * 2,
    }
    return {
        "beside_two_times_one": {name: [gateway_req_s / 40] * 2 for name in ("chat 64", "image 64")},
        "beside_both_directly": [gateway_req_s / 40] * 2,
        "first_token_ms": {"gateway": [through_ms] * 3, "directly": [20.0] * 3},
        "follow_ups_found": kept,
        "rounds": {name: rounds for name in ("chat 64", "image 64")},
    }


@pytest.mark.parametrize(
    ("measured", "reached"),
    [
        ((40.0, 20.0, 1.0), [True] * 6),
        ((39.3, 23.5, 0.95), [True, False, False, False, True, True]),
        ((30.0, 22.0, 0.9), [False, False, True, True, False, False]),
    ],
)
def test_each_goal_is_judged_by_its_own_figure(measured, reached):
    assert [is_reached for *_, is_reached in rows(found(*measured))] == reached
