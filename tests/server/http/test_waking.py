"""Requests to a model that is not loaded: who waits, who is refused and when to come again, and what a stream says."""

import asyncio

import pytest

from lingbi.api_errors import NotReady
from lingbi.demand.record import Record
from lingbi.http import waking as module
from lingbi.http.readiness import ASLEEP, LEAVING, LOADING_MODEL, READY, OnDemand, Readiness
from lingbi.http.waking import Waking, patience_of


@pytest.fixture
def waking(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMMENT_S", 0.02)
    readiness = Readiness("model", "cpu", "a test", phase=ASLEEP, on_demand=OnDemand(is_checked=True))
    return Waking(readiness, Record(tmp_path / "wakes"), 5.0, lambda: None)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", None),
        ("wait=10", 10.0),
        ("respond-async, wait=7", 7.0),
        ('wait="3"', 3.0),
        ("respond-async", 0.0),
        ("return=minimal", None),
        ("await=5", None),
    ],
)
def test_how_long_a_client_waits_is_in_its_header(prefer, seconds):
    assert patience_of({"prefer": prefer} if prefer else {}) == seconds


def test_who_waits_goes_on_when_the_model_is_loaded(waking):
    async def scenario():
        waiting = [asyncio.create_task(waking.wait()) for _ in range(3)]
        await asyncio.sleep(0.05)
        counted, waited_s = waking.waiting, waking.waited_s
        waking.readiness.enter(READY)
        waking.open()
        await asyncio.gather(*waiting)
        return counted, waited_s

    counted, waited_s = asyncio.run(scenario())
    assert counted == 3 and waited_s >= 0.04 and waking.waiting == 0


def test_a_model_that_is_being_put_away_still_answers_who_is_there_already(waking):
    waking.readiness.enter(LEAVING)
    assert not waking.must_wait and waking.readiness.is_ready


def test_a_stream_says_how_far_loading_is(waking):
    async def scenario():
        comments = []
        async for comment in waking.comments():
            comments.append(comment)
            if len(comments) == 2:
                waking.readiness.enter(LOADING_MODEL)
                waking.readiness.weights_loaded(1, 2)
            if len(comments) == 4:
                waking.readiness.enter(READY)
                waking.open()
        return comments

    assert asyncio.run(scenario()) == ["waiting for the model's turn"] * 2 + ["loading the model, 68%"] * 2


def test_who_may_not_wait_is_told_when_to_come_again_by_the_last_wake_and_the_model_is_wanted(waking):
    waking.record.count_wake({"tower": 4.0, "weights": 3.3}, is_swap=False)
    with pytest.raises(NotReady) as caught:
        asyncio.run(waking.wait(0.0))
    assert caught.value.headers == {"Retry-After": "8"} and "try again in 8 s" in str(caught.value)
    assert waking.waiting == 1
    waking.open()
    assert waking.waiting == 0


@pytest.fixture
def clock(monkeypatch):
    """Seconds by which the clock is ahead, in a list that tests change."""
    ahead, real = [0.0], module.time.monotonic
    monkeypatch.setattr(module.time, "monotonic", lambda: real() + ahead[0])
    return ahead


def call(waking) -> int:
    """Ask without waiting; after how many seconds to come again."""
    with pytest.raises(NotReady) as caught:
        asyncio.run(waking.wait(0.0))
    return int(caught.value.headers["Retry-After"])


def test_who_comes_again_and_again_keeps_the_model_wanted_and_waits_since_the_first_time(waking, clock):
    waking.record.count_wake({"weights": 100.0}, is_swap=False)
    found = []
    for clock[0] in (0.0, 30.0, 59.0, 90.0, 149.5):
        after_s = call(waking)
        found.append((waking.waiting, round(waking.waited_s), after_s))
    assert found == [(1, 0, 100), (1, 30, 70), (1, 59, 41), (1, 90, 10), (1, 150, 1)]
    clock[0] = 230.0
    assert waking.waiting == 0 == waking.waited_s  # it did not come again
    assert (call(waking), waking.waiting) == (100, 1)


def test_a_loaded_model_awaits_who_was_told_to_come_again_for_a_minute(waking, clock):
    for comes in (True, False):
        call(waking)
        waking.open()
        assert waking.is_awaiting and waking.waiting == 0
        clock[0] += module.CALLED_S - 1
        assert waking.is_awaiting
        if comes:
            waking.come()
        clock[0] += 0 if comes else 2
        assert not waking.is_awaiting


def test_a_loaded_model_awaits_nobody_who_was_promised_nothing_or_did_not_come_again(waking, clock):
    waking.call()  # as the arbiter has a model come back
    waking.open()
    assert not waking.is_awaiting
    call(waking)
    clock[0] += module.CALLED_S + 1
    waking.open()
    assert not waking.is_awaiting


def test_a_server_that_ends_says_so_to_who_waits(waking):
    async def refused():
        waiting = asyncio.create_task(waking.wait())
        await asyncio.sleep(0.01)
        waking.end()
        with pytest.raises(NotReady, match="this server ends before the model 'model' is loaded"):
            await waiting

    asyncio.run(refused())


def test_no_request_waits_for_longer_than_the_server_lets_it(waking):
    waking.wait_s = 0.05
    with pytest.raises(NotReady, match="being loaded"):
        asyncio.run(waking.wait(100.0))
    assert waking.waiting == 0


def test_a_model_that_cannot_be_loaded_refuses_who_waits_and_who_comes_soon_after_then_tries_again(waking, monkeypatch):
    async def refused():
        waiting = asyncio.create_task(waking.wait())
        await asyncio.sleep(0.01)
        waking.refuse("the weights are cut short")
        with pytest.raises(NotReady, match="cut short"):
            await waiting
        with pytest.raises(NotReady, match="cut short") as caught:
            await waking.wait()
        return int(caught.value.headers["Retry-After"])

    assert asyncio.run(refused()) == module.FAULT_SHOWN_S
    monkeypatch.setattr(module.time, "monotonic", lambda now=module.time.monotonic: now() + module.FAULT_SHOWN_S)

    async def tried_again():
        waiting = asyncio.create_task(waking.wait())
        await asyncio.sleep(0.01)
        wanted = waking.waiting
        waiting.cancel()
        return wanted

    assert asyncio.run(tried_again()) == 1


@pytest.mark.parametrize(
    ("phase", "checked", "called", "elder", "state"),
    [
        (ASLEEP, True, False, False, "asleep"),
        (ASLEEP, True, True, False, "waking"),
        (ASLEEP, True, True, True, "draining"),
        (LOADING_MODEL, True, True, False, "waking"),
        (READY, True, False, False, "ready"),
        (LEAVING, True, False, False, "draining"),
        ("failed", True, False, False, "failed"),
        ("preparing weights", False, False, False, "preparing weights"),
    ],
)
def test_the_state_that_a_model_is_in(phase, checked, called, elder, state):
    on_demand = OnDemand(is_checked=checked, is_called=lambda: called, is_elder_there=lambda: elder)
    assert on_demand.state(phase) == state


def test_a_worker_is_ready_while_its_model_sleeps_but_not_before_its_weights_are_checked_nor_after_a_fault():
    readiness = Readiness("model", "cpu", "a test", phase=ASLEEP, on_demand=OnDemand())
    assert not readiness.is_ready and not readiness.is_open
    readiness.on_demand.is_checked = True
    assert readiness.is_ready and readiness.report()["status"] == "ready"
    readiness.error = "the weights are cut short"
    assert not readiness.is_ready and readiness.is_open
    assert not Readiness("model", "cpu", "a test", phase=ASLEEP).is_open
