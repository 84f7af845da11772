"""What tests.load.pair makes of its rounds: which goal is reached, and which is not."""

import pytest

from lingbi_gateway.router.affinity import Beginning, ranked
from lingbi_gateway.router.running import MARK, Running
from tests.load.pair import WORKERS, found_share, rows


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


def test_first_questions_are_no_follow_ups_even_where_their_first_server_had_more_than_the_mean():
    """64 people at once, each with a picture of their own; then everybody asks again, and then one server is full."""
    gateway, servers = Running(), [f"127.0.0.1:{number}" for number in range(WORKERS)]
    pictures = [bytes([number]) * 16 for number in range(64)]

    def ask_all(is_new: bool) -> list:
        return [gateway.begin(servers, Beginning(picture, is_new), picture.hex()) for picture in pictures]

    first = ask_all(is_new=True)
    best = [ranked(servers, picture)[0] for picture in pictures]
    passed = sum(placed.server != server for placed, server in zip(first, best, strict=True))
    assert passed > 5 and gateway.results["new"] == 64  # what would have been counted with the follow-ups
    for placed, picture in zip(first, pictures, strict=True):
        gateway.end(f"{MARK}{picture.hex()} {placed.server}|200")
    ask_all(is_new=False)
    assert found_share(gateway.results) == 1.0
    gateway.loads[servers[0]] += 1000
    ask_all(is_new=False)
    assert 0.5 < found_share(gateway.results) < 0.9  # what does not find its server is still seen
