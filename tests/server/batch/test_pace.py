"""How many lines run beside people: simulated cards, on which each line makes everybody's tokens a little slower."""

import pytest

from lingbi.batch.pace import QUIET_S, SLOWEST, Pace, Seen


def run(pace: Pace, seconds: float, interactive: int, slower: float, start: float = 0.0) -> list:
    """(lines, token_s) at each look, twice a second; slower: what one line adds to a token's time, as a share."""
    told = []
    for look in range(int(seconds * 2)):
        lines = pace.allowed
        token_s = 0.02 * (1 + slower * lines) if interactive else None
        pace.look(start + look / 2, Seen(interactive, token_s, lines))
        told.append((lines, token_s))
    return told


def test_an_idle_worker_belongs_to_the_batches():
    assert {lines for lines, _ in run(Pace(128), 30, 0, 0.01)} == {128}


def test_when_somebody_begins_to_ask_lines_give_way_at_once():
    pace = Pace(128)
    assert pace.look(100, Seen(1, None, 128)) == 32


@pytest.mark.parametrize("slower", [0.001, 0.01, 0.1])
def test_people_keep_their_pace_and_lines_what_is_left(slower):
    pace = Pace(128)
    run(pace, 5, 0, slower)
    told = run(pace, 300, 8, slower, start=10)[-200:]
    best = min(token_s for _, token_s in told)
    assert sum(token_s for _, token_s in told) / len(told) <= SLOWEST * best
    assert sum(lines for lines, _ in told) / len(told) >= 1


def test_they_come_back_when_nobody_asks_any_more():
    pace = Pace(64)
    run(pace, 60, 8, 0.05)
    assert pace.allowed < 64
    pace.look(100, Seen(0, None, 1))
    assert pace.look(100 + QUIET_S - 1, Seen(0, None, 1)) < 64
    assert pace.look(100 + QUIET_S, Seen(0, None, 1)) == 64
