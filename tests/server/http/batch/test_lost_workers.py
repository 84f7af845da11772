"""Lines of workers that are gone wait again, and those of workers that were only silent are not asked twice."""

import time

import pytest

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import claims
from lingbi.http.batch import runner
from lingbi.http.batch.runner import Runner
from tests.server.batch.test_claims import claim, finish, make, sign_on
from tests.server.http.batch.test_runner import answer


@pytest.fixture
def pass_time(monkeypatch):
    """Let so many seconds pass, by both clocks."""
    real, passed = (time.time, time.monotonic), [0.0]
    monkeypatch.setattr(time, "time", lambda: real[0]() + passed[0])
    monkeypatch.setattr(time, "monotonic", lambda: real[1]() + passed[0])

    def let_pass(seconds: float) -> None:
        passed[0] += seconds

    return let_pass


@pytest.mark.parametrize("tries", [0, 1, 4], ids=["a halted machine", "one try", "several tries"])
def test_a_worker_that_was_away_from_the_database_itself_leaves_lines_to_the_others(
    service, store, monkeypatch, pass_time, tries
):
    """The first one that is back finds no other that was seen lately; all are there, with lines that are answered."""
    first, second = (Runner(service, answer, store, name) for name in ("first", "second"))
    make(store.database, count=4, window_s=3600)
    for one in (first, second):
        one._keep_house()
    taken = claim(store.database, "second")

    def away():
        raise DatabaseAway("the accounts' database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(store.database, "begin", away)
        for _ in range(tries):
            pass_time(40 / tries)
            with pytest.raises(DatabaseAway):
                first._keep_house()
    pass_time(0 if tries else 40)
    first._keep_house()
    assert len(taken) == 4 and finish(store.database, "second", taken[0])
    for _ in range(2):
        pass_time(runner.SIGN_S)
        first._keep_house()
    assert finish(store.database, "second", taken[1]), "the others had little time to come back"
    for _ in range(2):
        pass_time(runner.SIGN_S)
        first._keep_house()
    assert [one.line for one in claim(store.database, "first")] == [3, 4], "who does not come back is taken for dead"


@pytest.mark.parametrize("is_away", [True, False], ids=["it is away", "it is just back"])
def test_a_worker_that_begins_without_having_seen_the_others_leaves_lines_to_them(
    service, store, monkeypatch, pass_time, is_away
):
    make(store.database, count=2, window_s=3600)
    sign_on(store.database, "second")
    taken = claim(store.database, "second")
    first = Runner(service, answer, store, "first")
    pass_time(claims.LOST_S + 10)
    if is_away:
        with monkeypatch.context() as patched, pytest.raises(DatabaseAway):
            patched.setattr(claims, "sign_on", lambda *_: (_ for _ in ()).throw(DatabaseAway("it is away")))
            first._keep_house()
    first._keep_house()
    assert finish(store.database, "second", taken[0])
    for _ in range(4):
        pass_time(runner.SIGN_S)
        first._keep_house()
    assert not finish(store.database, "second", taken[1]), "who does not come back is taken for dead"
