"""Sessions of administrators: they end, they are few, and they tell nothing."""

import pytest

from lingbi_ui.accounts.sessions import IDLE_S, LASTS_S, MAX_OF_ONE, MAX_SESSIONS, Sessions


@pytest.fixture
def clock():
    return type("Clock", (), {"now": 1000.0, "__call__": lambda self: self.now})()


def test_a_session_ends_when_it_is_idle_and_after_a_time(clock):
    sessions = Sessions(clock)
    token = sessions.begin("lb-key", True)
    for _ in range(LASTS_S // (IDLE_S - 1)):
        clock.now += IDLE_S - 1
        assert sessions.find(token).key == "lb-key"
    clock.now += IDLE_S - 1
    assert sessions.find(token) is None, "eight hours are over, though it was never idle"
    token = sessions.begin("lb-key", True)
    clock.now += IDLE_S
    assert sessions.find(token) is None and len(sessions) == 0


def test_the_one_that_was_idle_longest_ends_when_there_are_too_many(clock):
    sessions = Sessions(clock)
    first, second, *others = (sessions.begin(f"lb-{number}", True) for number in range(MAX_SESSIONS))
    assert sessions.find(first)
    last = sessions.begin("lb-key", True)
    assert len(sessions) == MAX_SESSIONS and sessions.find(second) is None
    assert all(sessions.find(token) for token in (first, *others, last))


def test_one_key_cannot_end_the_sessions_of_others(clock):
    sessions = Sessions(clock)
    other, *own = (sessions.begin("lb-other", True), *(sessions.begin("lb-key", False) for _ in range(MAX_OF_ONE + 3)))
    assert sessions.find(other).is_admin and len(sessions) == 1 + MAX_OF_ONE
    assert [sessions.find(token) is None for token in own] == [True] * 3 + [False] * MAX_OF_ONE


def test_logout_ends_one_session_and_what_is_no_token_is_none(clock):
    sessions = Sessions(clock)
    mine, other = sessions.begin("lb-key", True), sessions.begin("lb-key", True)
    sessions.end(mine)
    sessions.end("no token")
    assert sessions.find(mine) is None and sessions.find(other) and sessions.find("") is None


def test_sentences_and_new_keys_are_shown_once_and_secrets_never_printed(clock):
    sessions = Sessions(clock)
    session = sessions.find(sessions.begin("lb-secret", True))
    session.said, session.shown = ("made", {"name": "a"}), ("a", "lb-new")
    assert "lb-" not in repr(session) and session.form not in repr(session)
    assert session.take_shown() == ("a", "lb-new") and session.take_shown() is None
    assert session.take_said() == ("made", {"name": "a"}) and session.take_said() is None
