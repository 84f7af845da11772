"""Limits that several workers keep together, on a real database: what is held, counted, released and forgotten."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas import holds as holding
from lingbi.accounts.quotas.decision import Asked, decide
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.own_use import Taken
from lingbi.accounts.quotas.use import add_use, forget_use
from lingbi.accounts.tables import holds, quota_use

UTC = ZoneInfo("UTC")


def limit(measure="tokens", most=100, period="day", subject_kind="key", subject="alice"):
    return Limit(subject_kind, subject, measure, period, most)


def key_of(*limits, name="alice", group=None):
    return KeyFacts(name, group=group, limits=limits)


def entry(request, tokens=0, status=200, key="alice", requests=1, images=0, at=None):
    at = time.time() if at is None else at
    return Entry(request, at, key, "demo", status, Counts(requests, prompt_tokens=tokens, images=images))


def ready(url):
    database = Database(url)
    database.bring_up_to_date()
    return database


@pytest.fixture
def sqlite(tmp_path):
    return ready(parse_url(f"sqlite:///{tmp_path}/accounts.db"))


@pytest.fixture
def worker(database):
    return Holds(database, "one", UTC)


def count(database, *entries, key=None, zone=UTC):
    with database.begin() as connection:
        add_use(connection, database, entries, ({key.name: key} if key else {}).get, zone)


def rows(database, table=holds):
    with database.read() as connection:
        return connection.execute(sa.select(table)).all()


def test_what_runs_is_held_until_it_is_counted(database, worker):
    key = key_of(limit(most=100))
    assert worker.take("r1", key, Asked(60))[0].denial is None
    other = Holds(database, "two", UTC)
    [seen] = other.standings(key)
    assert (seen.used, seen.held, seen.is_beyond) == (0, 60, False)
    count(database, entry("r1", tokens=20, status=None), key=key)
    assert [(found.used, found.held) for found in other.standings(key)] == [(20, 40)]
    count(database, entry("r1", tokens=5, requests=0), key=key)
    assert [(found.used, found.held) for found in other.standings(key)] == [(25, 0)]
    assert rows(database) == []


def test_each_worker_may_have_one_request_that_goes_beyond(database, worker):
    key = key_of(limit(most=100))
    assert worker.take("r1", key, Asked(5000))[0].beyond == {"key:alice"}
    assert worker.take("r2", key, Asked(5000))[0].denial.why == "held"
    assert worker.take("r3", key, Asked(100))[0].denial is None  # it fits
    assert Holds(database, "two", UTC).take("r4", key, Asked(5000))[0].denial.why == "held"  # all is held now
    count(database, entry("r3", tokens=10), key=key)
    assert Holds(database, "two", UTC).take("r4", key, Asked(5000))[0].denial is None
    count(database, entry("r1", tokens=90), key=key)
    assert Holds(database, "three", UTC).take("r5", key, Asked(1))[0].denial.why == "used up"


def test_a_group_is_limited_together_and_its_members_each(database, worker):
    together = limit("requests", 3, subject_kind="group", subject="vision")
    each = limit("requests", 2, subject_kind="member", subject="vision")
    alice, bob = (key_of(together, each, name=name, group="vision") for name in ("alice", "bob"))
    assert [worker.take(f"a{n}", alice, Asked(1))[0].denial is None for n in range(3)] == [True, True, False]
    assert [worker.take(f"b{n}", bob, Asked(1))[0].denial is None for n in range(2)] == [True, False]
    for request, key in (("a0", alice), ("a1", alice), ("b0", bob)):
        count(database, entry(request, key=key.name), key=key)
    denial = worker.take("b9", bob, Asked(1))[0].denial
    assert (denial.why, denial.standing.limit, denial.standing.used) == ("used up", together, 3)


def test_use_before_a_limit_was_made_counts(database):
    count(database, entry("r1", tokens=70), key=key_of())
    [seen] = Holds(database, "one", UTC).standings(key_of(limit(most=100, period="month")))
    assert seen.used == 70


def test_requests_that_were_refused_do_not_count_and_those_that_failed_do(database, worker):
    key = key_of(limit("requests", 10))
    for number, status in enumerate((200, 400, 404, 429, 499, 500, 502)):
        worker.take(f"r{number}", key, Asked(1))
        count(database, entry(f"r{number}", status=status), key=key)
    assert [found.used for found in worker.standings(key)] == [4]
    assert rows(database) == []


def test_holds_of_a_dead_worker_do_not_count_and_are_deleted(database, worker, monkeypatch):
    key = key_of(limit(most=100))
    dead = Holds(database, "dead", UTC)
    dead.take("r1", key, Asked(100))
    assert worker.take("r2", key, Asked(50))[0].denial.why == "held"
    with database.begin() as connection:
        connection.execute(sa.update(holds).values(seen_at=time.time() - holding.STALE_S - 1))
    assert worker.take("r2", key, Asked(50))[0].denial is None
    monkeypatch.setattr(holding, "CLEAN_S", 20)
    worker.beat()
    assert [row.worker for row in rows(database)] == ["one"]


def test_a_worker_that_lives_keeps_its_holds(database, worker):
    key = key_of(limit(most=100))
    worker.take("r1", key, Asked(100))
    with database.begin() as connection:
        connection.execute(sa.update(holds).values(seen_at=0))
    worker.beat()
    assert Holds(database, "two", UTC).take("r2", key, Asked(50))[0].denial.why == "held"


def test_what_a_worker_does_not_know_of_itself_is_deleted(database, worker):
    key = key_of(limit(most=100))
    worker.take("r1", key, Asked(40))
    worker.take("r2", key, Asked(30))
    worker.own.drop(["r1"])  # as if the database had not told how that transaction ended
    worker.beat()
    assert [row.request for row in rows(database)] == ["r2"]


def test_which_rows_of_a_worker_are_lost():
    running = Taken(key_of(), Asked(1), 0)
    waiting = Taken(key_of(), Asked(1), 0, use=(1, 1, 0), ended_at=100.0)
    assert holding.lost({"r": running, "w": waiting}, {"r", "w", "unknown"}, 100 + holding.COUNTED_S) == {"unknown"}
    assert holding.lost({"r": running, "w": waiting}, {"r", "w"}, 101 + holding.COUNTED_S) == {"w"}


def test_a_worker_without_limited_requests_asks_nothing(sqlite):
    worker, asked = Holds(sqlite, "one", UTC), []
    sa.event.listen(sqlite.engine, "before_cursor_execute", lambda *event: asked.append(event[2]))
    worker.beat()
    assert asked == []
    worker.take("r1", key_of(limit()), Asked(1))
    assert asked


def test_the_database_away_leaves_what_a_worker_knows(database, worker):
    key = key_of(limit(most=100), limit("requests", 5))
    worker.take("r1", key, Asked(60))
    worker.own.end("r1", (1, 30, 0))
    worker.take("r2", key, Asked(10))
    count(database, entry("r2", tokens=10), key=key)
    worker.own.count([entry("r2", tokens=10)])
    now = time.time()
    tokens, requests = worker.own.standings(key, now)
    assert (tokens.used, tokens.held, requests.used, requests.held) == (40, 0, 2, 0)
    assert worker.take_alone("r3", key, Asked(60), now).denial is None
    assert worker.take_alone("r4", key, Asked(10), now).denial.why == "held"
    worker.own.end("r3", (1, 60, 0))
    assert worker.take_alone("r5", key, Asked(10), now).denial.why == "used up"
    assert worker.take_alone("r6", key, Asked(10), now + 2 * 86400).denial is None


def test_progress_that_was_counted_is_not_known_twice(database, worker):
    key = key_of(limit(most=100))
    worker.take("r1", key, Asked(80))
    worker.own.count([entry("r1", tokens=30, status=None)])
    assert [(found.used, found.held) for found in worker.own.standings(key, time.time())] == [(30, 50)]
    worker.own.end("r1", (1, 40, 0))
    assert [(found.used, found.held) for found in worker.own.standings(key, time.time())] == [(40, 0)]


def test_periods_that_are_over_are_forgotten(database):
    key = key_of(limit(period="minute"))
    count(database, entry("r1", at=1_000_000.0), entry("r2"), key=key)
    with database.begin() as connection:
        forget_use(connection, time.time())
    assert {row.period_start > 2_000_000 for row in rows(database, quota_use)} == {True}


def test_while_one_worker_decides_another_waits(database, monkeypatch):
    key, is_reading = key_of(limit("requests", 1)), threading.Event()

    def slowly(*arguments):
        is_reading.set()
        time.sleep(0.3)
        return decide(*arguments)

    monkeypatch.setattr(holding, "decide", slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(Holds(database, "one", UTC).take, "r1", key, Asked(1))
        assert is_reading.wait(10)
        second = threads.submit(Holds(database, "two", UTC).take, "r2", key, Asked(1))
        assert (first.result()[0].denial, second.result()[0].denial.why) == (None, "held")
