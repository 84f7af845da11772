"""Limits that several workers keep together, on a real database: what is held, counted, released and forgotten."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Entry
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas import holds as holding
from lingbi.accounts.quotas.decision import Asked, decide
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.own_use import Taken
from lingbi.accounts.quotas.use import add_use, forget_use, use_of
from lingbi.accounts.tables import holds, quota_use

UTC, SHANGHAI = ZoneInfo("UTC"), ZoneInfo("Asia/Shanghai")
FAR = 4_000_000_000


def limit(measure="tokens", most=100, period="day", subject_kind="key", subject="alice"):
    return Limit(subject_kind, subject, measure, period, most)


def key_of(*limits, name="alice", group=None):
    return KeyFacts(name, group=group, limits=limits)


def entry(request, tokens=0, status=200, key="alice", requests=1, images=0, at=None):
    at = time.time() if at is None else at
    return Entry(request, at, key, "demo", status, requests, prompt_tokens=tokens, images=images)


def ready(url):
    database = Database(url)
    database.bring_up_to_date()
    return database


@pytest.fixture
def database(any_database):
    return ready(any_database)


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


def test_a_request_counts_for_the_day_on_which_it_came():
    late = 1_777_564_799  # 2026-04-30 23:59:59 in Shanghai
    key = key_of(limit(period="minute"))
    found = use_of([entry("r1", tokens=7, at=late), entry("r2", tokens=1, at=late + 1)], {"alice": key}.get, SHANGHAI)
    midnight, april = late + 1, late + 1 - 30 * 86400
    assert found == {
        ("key:alice", "minute", midnight - 60): (1, 7, 0),
        ("key:alice", "minute", midnight): (1, 1, 0),
        ("key:alice", "day", midnight - 86400): (1, 7, 0),
        ("key:alice", "day", midnight): (1, 1, 0),
        ("key:alice", "month", april): (1, 7, 0),
        ("key:alice", "month", midnight): (1, 1, 0),
    }


def test_a_request_that_was_let_in_later_than_it_came_counts_from_then_whatever_the_hosts_clock():
    let_in = entry("r1", at=7199.0)._replace(charged_at=7200)
    found = use_of([let_in], {"alice": key_of(limit(period="minute"))}.get, UTC, skew_s=-3600)
    assert {row[2] for row in found if row[1] == "minute"} == {7200}


def test_a_host_whose_clock_is_an_hour_off_counts_by_the_databases():
    key = key_of(limit(period="minute"))
    [minute] = [
        row for row in use_of([entry("r1", at=7200.0)], {"alice": key}.get, UTC, skew_s=-3600) if row[1] == "minute"
    ]
    assert minute[2] == 3600


def test_minutes_are_added_up_only_where_they_are_limited():
    assert {row[1] for row in use_of([entry("r1")], {"alice": key_of(limit())}.get, UTC)} == {"day", "month"}


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


# Each step: a worker, what it does, the most that its request may take, the part of that which it takes, and images.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["take", "take", "tell", "end", "die"]),
        st.integers(1, 60),
        st.floats(0, 1),
        st.integers(0, 2),
    ),
    max_size=40,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(STEPS, st.integers(1, 150), st.integers(1, 12), st.integers(0, 6))
def test_four_workers_on_one_database_keep_to_limits(tmp_path_factory, steps, most, most_requests, most_images):
    database = ready(parse_url(f"sqlite:///{tmp_path_factory.mktemp('fleet')}/accounts.db"))
    key = key_of(limit(most=most), limit("requests", most_requests), limit("images", most_images))
    fleet, running, largest, number = [], [{}, {}, {}, {}], [0] * 4, 0
    fleet = [Holds(database, f"worker-{place}", UTC) for place in range(4)]
    for place, what, estimate, part, images in steps:
        if what == "take":
            number += 1
            verdict, _ = fleet[place].take(f"r{number}", key, Asked(estimate, images))
            if verdict.denial is None:
                real = max(1, round(estimate * part))
                running[place][f"r{number}"] = [real, images, 0]
                largest[place] = max(largest[place], real if verdict.beyond else 0)
        elif running[place]:
            request, left = next(iter(running[place].items()))
            if what == "tell" and left[0] > 1:
                left[0], told = left[0] - 1, left[2] == 0
                left[2] = 1
                count(database, entry(request, tokens=1, status=None, requests=int(told)), key=key)
            elif what == "end":
                end(database, key, running[place], request)
            elif what == "die":  # another worker of the host finishes its journal
                for request in list(running[place]):
                    end(database, key, running[place], request, status=502)
                fleet[place] = Holds(database, f"worker-{place}-{number}", UTC)
    for there in running:
        for request in list(there):
            end(database, key, there, request)
    tokens, requests, pictures = fleet[0].standings(key)
    assert tokens.used <= most + sum(largest)
    assert requests.used <= most_requests and pictures.used <= most_images
    assert rows(database) == []


def end(database, key, running, request, status=200):
    real, images, told = running.pop(request)
    count(database, entry(request, tokens=real, status=status, requests=1 - told, images=images), key=key)


FLEET = """
import random, sys, time
from zoneinfo import ZoneInfo
from lingbi.accounts.database import Database
from lingbi.accounts.entries import Entry
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use
from lingbi.accounts.quotas.decision import Asked
import sqlalchemy as sa

name, seed = sys.argv[1], int(sys.argv[1])
database = Database(sa.make_url(sys.stdin.readline().strip()))
together = Limit("group", "vision", "tokens", "day", 2000), Limit("group", "vision", "requests", "day", 50)
key = KeyFacts("alice", group="vision", limits=together)
worker, chance, running, largest = Holds(database, f"w{name}", ZoneInfo("UTC")), random.Random(seed), [], 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    if running and (len(running) > 4 or chance.random() < 0.5):
        request, real = running.pop(0)
        with database.begin() as connection:
            entry = Entry(request, time.time(), "alice", "demo", 200, 1, completion_tokens=real)
            add_use(connection, database, [entry], {"alice": key}.get, ZoneInfo("UTC"))
        continue
    most = chance.randint(1, 400)
    verdict, _ = worker.take(f"{name}-{number}", key, Asked(most))
    if verdict.denial is None:
        real = chance.randint(1, most)
        running.append((f"{name}-{number}", real))
        largest = max(largest, real if verdict.beyond else 0)
for request, real in running:
    with database.begin() as connection:
        entry = Entry(request, time.time(), "alice", "demo", 200, 1, completion_tokens=real)
        add_use(connection, database, [entry], {"alice": key}.get, ZoneInfo("UTC"))
print(largest)
"""


def test_four_processes_at_once_keep_to_a_groups_limits(database):
    url = database.url.render_as_string(hide_password=False)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    fleet = [subprocess.Popen([sys.executable, "-c", FLEET, str(n)], env=environment, **pipes) for n in range(4)]
    for process in fleet:
        process.stdin.write(f"{url}\n")
        process.stdin.flush()
    assert [process.stdout.readline() for process in fleet] == ["ready\n"] * 4
    largest = [int(process.communicate("go\n", timeout=60)[0]) for process in fleet]
    assert [process.returncode for process in fleet] == [0] * 4
    tokens, requests = Holds(database, "judge", UTC).standings(
        key_of(
            limit(most=2000, subject_kind="group", subject="vision"),
            limit("requests", 50, subject_kind="group", subject="vision"),
        )
    )
    assert 2000 <= tokens.used <= 2000 + sum(largest) or requests.used == 50
    assert requests.used <= 50
    assert rows(database) == []
