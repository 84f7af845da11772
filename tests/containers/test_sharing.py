"""Processes of one run share the engine: the first starts it, the last tidies and ends it; another run is turned away."""

from types import SimpleNamespace

import pytest
from filelock import FileLock

from tests.containers import engine, sharing


@pytest.fixture
def done(monkeypatch, tmp_path) -> list:
    """What was done, in order, to an engine that is not there."""
    steps = []
    monkeypatch.setattr(sharing, "USERS", tmp_path / "users")
    monkeypatch.setattr(sharing, "DOOR", FileLock(tmp_path / "door"))
    monkeypatch.setattr(engine, "ensure", lambda: steps.append("ensure") or SimpleNamespace(pid=7))
    monkeypatch.setattr(engine, "stop", lambda process: steps.append(f"stop {process}"))
    return steps


def share(done: list):
    return sharing.shared(lambda: done.append("look") or "as it was", lambda seen: done.append(f"tidy {seen}"))


def test_the_first_starts_it_and_the_last_ends_it_whoever_that_is(done):
    first, second = share(done), share(done)
    assert first.__enter__() and second.__enter__()
    first.__exit__(None, None, None)
    assert done == ["ensure", "look"]
    second.__exit__(None, None, None)
    assert done == ["ensure", "look", "tidy as it was", "stop 7"]


def test_it_is_ended_where_something_was_left(done):
    def tidy(seen):
        raise AssertionError("a volume is left")

    with pytest.raises(AssertionError, match="a volume is left"), sharing.shared(lambda: "as it was", tidy):
        pass
    assert done == ["ensure", "stop 7"]


def test_an_engine_that_ran_already_goes_on(done, monkeypatch):
    monkeypatch.setattr(engine, "ensure", lambda: None)
    with share(done) as is_ours:
        assert not is_ours
    assert done == ["look", "tidy as it was"]


def test_another_run_is_turned_away_and_may_come_later(done, monkeypatch):
    with share(done):
        monkeypatch.setattr(sharing, "RUN", "another")
        with pytest.raises(sharing.InUse), share(done):
            pytest.fail("both runs have the engine")
    with share(done):
        assert done[-2:] == ["ensure", "look"]
