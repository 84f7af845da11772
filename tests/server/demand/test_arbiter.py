"""The arbiter's process: what it hears, what it says, and who it takes to be gone."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from lingbi.demand.arbiter import Arbiter, Told
from lingbi.demand.decision import ASLEEP, CHECKED, DRAINING, READY, WAKING, Bounds

BOUNDS = Bounds(slots=1, stay_s=30, idle_s=0)


class Writer:
    """The worker's side of a connection: the orders that were sent."""

    def __init__(self):
        self.orders = []

    def write(self, line: bytes) -> None:
        self.orders.append(json.loads(line))


def told(worker: int, phase: str, **more) -> Told:
    return Told(
        **{"id": 0, "pid": os.getpid(), "worker": worker, "model": f"model-{worker}", "place": "0", "phase": phase}
        | more
    )


@pytest.fixture
def host():
    """An arbiter of two workers that have both reported, and their writers."""
    arbiter, writers = Arbiter(BOUNDS, 2), [Writer(), Writer()]
    arbiter.hear(0, told(0, READY, idle_s=5, ready_s=60), writers[0])
    arbiter.hear(1, told(1, ASLEEP), writers[1])
    return arbiter, writers


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_swap_goes_step_by_step_and_tells_what_it_took(host):
    arbiter, (loaded, asleep) = host
    arbiter.hear(1, told(1, ASLEEP, waiting=1), asleep)
    assert [order["do"] for order in asleep.orders] == ["check"] and loaded.orders == []
    arbiter.hear(1, told(1, CHECKED, heard=1, waiting=1), asleep)
    assert [(order["do"], order["why"]) for order in loaded.orders] == [("put away", "room")]
    arbiter.hear(0, told(0, DRAINING, heard=1, pid=ended_process()), loaded)
    assert len(asleep.orders) == 1  # the memory is not free yet
    arbiter._gone(0)
    order = asleep.orders[1]
    assert order["do"] == "wake" and order["after"] == "model-0" and order["drain_s"] >= 0 and order["exit_s"] >= 0


def test_what_was_put_away_because_nobody_asked_was_not_put_away_for_the_next_one():
    arbiter, loaded, asleep = Arbiter(Bounds(slots=1, stay_s=30, idle_s=2), 2), Writer(), Writer()
    arbiter.hear(0, told(0, READY, idle_s=5, ready_s=60), loaded)
    arbiter.hear(1, told(1, ASLEEP), asleep)
    assert [(order["do"], order["why"]) for order in loaded.orders] == [("put away", "idle")]
    arbiter.hear(0, told(0, DRAINING, heard=1, pid=ended_process()), loaded)
    arbiter._gone(0)
    arbiter.hear(1, told(1, ASLEEP, waiting=1), asleep)
    arbiter.hear(1, told(1, CHECKED, heard=1, waiting=1), asleep)
    assert asleep.orders[-1] == {"number": 2, "do": "wake", "why": ""} and arbiter.former == {}


def test_memory_is_free_only_when_the_process_has_ended(host):
    arbiter, (loaded, asleep) = host
    arbiter.hear(1, told(1, CHECKED, waiting=1), asleep)
    lingering = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    arbiter.hear(0, told(0, DRAINING, heard=1, pid=lingering.pid), loaded)
    arbiter._gone(0)
    arbiter.act()
    assert asleep.orders == []
    lingering.kill()
    lingering.wait()
    arbiter.act()
    assert [order["do"] for order in asleep.orders] == ["wake"]


def test_what_was_said_before_an_order_came_does_not_undo_it(host):
    arbiter, (loaded, asleep) = host
    arbiter.hear(1, told(1, CHECKED, waiting=1), asleep)
    assert arbiter.known[0].told.phase == DRAINING
    arbiter.hear(0, told(0, READY, idle_s=6, ready_s=61), loaded)
    assert arbiter.known[0].told.phase == DRAINING and len(loaded.orders) == 1


def test_one_that_vanishes_while_it_loads_leaves_the_card_to_others(host):
    arbiter, (loaded, asleep) = host
    arbiter.hear(0, told(0, WAKING, pid=ended_process()), loaded)
    arbiter._gone(0)
    arbiter.hear(1, told(1, CHECKED, waiting=1), asleep)
    assert [order["do"] for order in asleep.orders] == ["wake"]


def test_a_model_that_was_put_away_for_one_that_could_not_be_loaded_comes_back(host):
    arbiter, (loaded, asleep) = host
    arbiter.hear(1, told(1, CHECKED, waiting=1), asleep)
    arbiter.hear(0, told(0, DRAINING, heard=1, pid=ended_process()), loaded)
    arbiter._gone(0)
    successor = Writer()
    arbiter.hear(2, told(0, ASLEEP), successor)
    arbiter.hear(1, told(1, WAKING, heard=1, pid=ended_process()), asleep)
    arbiter._gone(1)
    assert [(order["do"], order["why"]) for order in successor.orders] == [("check", "restore")]
    arbiter.hear(2, told(0, ASLEEP, heard=1), successor)  # it found its own weights broken too
    assert len(successor.orders) == 1


def test_an_arbiter_that_is_new_waits_for_all_workers_before_it_decides():
    arbiter, asleep = Arbiter(BOUNDS, 2), Writer()
    arbiter.hear(1, told(1, CHECKED, waiting=1), asleep)
    assert asleep.orders == []  # the other one may hold the card
    arbiter.hear(0, told(0, ASLEEP), Writer())
    assert [order["do"] for order in asleep.orders] == ["wake"]


def test_a_line_that_is_not_understood_ends_that_connection_alone():
    async def talk():
        arbiter = Arbiter(BOUNDS, 1)
        reader = asyncio.StreamReader()
        reader.feed_data(b'{"nonsense": 1}\n')
        closed = []
        writer = type("Writer", (), {"close": lambda self: closed.append(True)})()
        await arbiter.talk(reader, writer)
        return arbiter.known, closed

    assert asyncio.run(talk()) == ({}, [True])
