"""Several workers at once, on one database: together they keep to limits, whatever they do."""

import os
import subprocess
import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lingbi.accounts.database import parse_url
from lingbi.accounts.quotas.decision import Asked
from lingbi.accounts.quotas.holds import Holds
from tests.server.accounts.quotas.test_holds import UTC, count, entry, key_of, limit, ready, rows

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
from lingbi.accounts.entries import Counts, Entry
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
            entry = Entry(request, time.time(), "alice", "demo", 200, Counts(1, completion_tokens=real))
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
        entry = Entry(request, time.time(), "alice", "demo", 200, Counts(1, completion_tokens=real))
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
