"""What requests get while the database of quotas answers, is slow, or is away."""

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database, DatabaseAway, parse_url
from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas.decision import Asked
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use
from lingbi.accounts.tables import holds as rows_of_holds
from lingbi.accounts.usage.owners import erase
from lingbi.api_errors import OverQuota, QuotasAway
from lingbi.http.admission import quotas as admission
from lingbi.http.admission.quotas import Quotas

KEY = KeyFacts("alice", limits=(Limit("key", "alice", "requests", "day", 2),))
FREE = KeyFacts("bob")


@pytest.fixture
def holds(tmp_path):
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    database.bring_up_to_date()
    return Holds(database, "worker", ZoneInfo("UTC"))


def admitted(quotas, *requests, key=KEY):
    """The headers, or the refusal, of each request, in turn."""

    async def ask():
        found = []
        for request in requests:
            try:
                found.append((await quotas.admit(request, key, Asked(10))).headers)
            except (OverQuota, QuotasAway) as refusal:
                found.append(refusal)
        return found

    return asyncio.run(ask())


AWAY = DatabaseAway("gone")


def cut(holds, monkeypatch, error=AWAY):
    """Have the database fail so, or hang for so many seconds; returns the calls that it got."""
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if isinstance(error, Exception):
            raise error
        time.sleep(error)

    monkeypatch.setattr(holds, "take", fail)
    return calls


def test_while_it_answers_the_database_decides(holds):
    first, second, third = admitted(Quotas(holds, "closed"), "r1", "r2", "r3")
    assert [first["x-ratelimit-remaining-requests"], second["x-ratelimit-remaining-requests"]] == ["1", "0"]
    assert isinstance(third, OverQuota) and third.reason == "requests_a_day"


def test_away_and_local_a_worker_goes_by_what_it_knows(holds, monkeypatch):
    quotas = Quotas(holds, "local")
    admitted(quotas, "r1")
    cut(holds, monkeypatch)
    second, third = admitted(quotas, "r2", "r3")
    assert second["x-ratelimit-remaining-requests"] == "0" and isinstance(third, OverQuota)
    assert quotas.is_away


def test_away_and_open_nothing_is_limited(holds, monkeypatch):
    cut(holds, monkeypatch)
    assert admitted(Quotas(holds, "open"), *"abcd") == [{}] * 4


def test_away_and_closed_keys_with_limits_wait_for_it_and_others_do_not(holds, monkeypatch):
    cut(holds, monkeypatch)
    quotas = Quotas(holds, "closed")
    [refused] = admitted(quotas, "r1")
    assert (refused.status, refused.code, refused.headers) == (503, "quotas_away", {"Retry-After": "5"})
    assert admitted(quotas, "r2", key=FREE) == [{}]


def test_only_the_first_request_waits_for_a_database_that_hangs(holds, monkeypatch):
    monkeypatch.setattr(admission, "PATIENCE_S", 0.2)
    calls = cut(holds, monkeypatch, 1.0)
    quotas, begun = Quotas(holds, "open"), time.monotonic()

    async def ask():
        return [(await quotas.admit(request, KEY, Asked(10))).headers for request in "abcd"], time.monotonic() - begun

    found, took = asyncio.run(ask())
    assert found == [{}] * 4 and len(calls) == 1 and took >= 0.2


def ended(holds, request, is_released=True):
    """A request that was let in has ended, and is counted; is_released: and what it holds with that."""
    entry = Entry(request, time.time(), "alice", "demo", 200, Counts(1, completion_tokens=5))
    holds.own.end(request, (1, 5, 0))
    if is_released:
        with holds.database.begin() as connection:
            add_use(connection, holds.database, [entry], {"alice": KEY}.get, holds.zone)
    holds.own.count([entry])


def held(holds):
    with holds.database.read() as connection:
        return connection.execute(sa.select(rows_of_holds)).all()


@pytest.mark.parametrize("when_away", ["local", "open"])
@pytest.mark.parametrize("slow", ["begin", "commit"])
def test_a_request_that_waits_no_longer_leaves_nothing_held(holds, monkeypatch, when_away, slow):
    """Its transaction begins, or tells that it is committed, only after the request has ended and is counted."""
    monkeypatch.setattr(admission, "PATIENCE_S", 0.2)
    quotas, begin, goes_on = Quotas(holds, when_away), holds.database.begin, threading.Event()

    @contextlib.contextmanager
    def slowly():
        monkeypatch.setattr(holds.database, "begin", begin)
        if slow == "begin":
            assert goes_on.wait(10)
        with begin() as connection:
            yield connection
        if slow == "commit":
            assert goes_on.wait(10)

    monkeypatch.setattr(holds.database, "begin", slowly)
    assert len(admitted(quotas, "r1")) == 1 and quotas.is_away
    ended(holds, "r1", is_released=slow == "begin")
    goes_on.set()
    for _ in range(3):
        quotas._asking.submit(holds.beat).result()
    assert not held(holds) and not holds.own.taken


def unseen(quotas, key=KEY):
    """Whether a request is refused whose body is still to be read; what was begun for it ends."""

    async def ask():
        try:
            quotas.refuse_spent(key)
        except OverQuota as refusal:
            return str(refusal)
        finally:
            await asyncio.gather(*quotas._looks)

    return asyncio.run(ask())


def known_to_be_spent(holds) -> Quotas:
    """Quotas that were told that the key has nothing left."""
    quotas = Quotas(holds, "closed")
    for request in ("r1", "r2"):
        admitted(quotas, request)
        ended(holds, request)
    admitted(quotas, "r3")
    return quotas


def test_a_key_that_has_nothing_left_is_refused_before_its_body_is_read(holds, monkeypatch):
    quotas = Quotas(holds, "closed")
    assert admitted(quotas, "r1") and unseen(quotas) is None  # one is left, and another runs
    ended(holds, "r1")
    admitted(quotas, "r2")
    ended(holds, "r2")
    assert unseen(quotas) is None and isinstance(admitted(quotas, "r3")[0], OverQuota)  # now it is known
    asked = cut(holds, monkeypatch)
    assert "has used 2 of 2 requests a day" in unseen(quotas) and not asked
    more = replace(KEY, limits=(replace(KEY.limits[0], most=3),))
    assert unseen(quotas, more) is None  # its limit was raised
    quotas.is_away = True
    assert unseen(quotas) is None  # then LINGBI_QUOTA_WHEN_AWAY decides


def test_a_key_that_gets_all_back_is_answered_after_two_seconds(holds, monkeypatch):
    quotas = known_to_be_spent(holds)
    with holds.database.begin() as connection:
        erase(connection, holds.database, ["alice"])
    assert unseen(quotas)
    monkeypatch.setattr(admission, "KNOWN_S", 0.0)
    assert unseen(quotas) and unseen(quotas) is None


def test_what_is_known_of_a_key_ends_with_its_period(holds, monkeypatch):
    quotas = known_to_be_spent(holds)
    tomorrow = holds.clock.now() + 86_400
    monkeypatch.setattr(holds.clock, "now", lambda: tomorrow)
    assert unseen(quotas) is None and not quotas._spent


def test_the_database_is_asked_again_once_it_is_back(holds, monkeypatch):
    monkeypatch.setattr(admission, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(admission, "BEAT_S", 0.05)
    quotas, take = Quotas(holds, "open"), holds.take
    cut(holds, monkeypatch)
    assert admitted(quotas, "r1") == [{}] and quotas.is_away
    monkeypatch.setattr(holds, "take", take)
    quotas.begin()
    try:
        deadline = time.monotonic() + 10
        while quotas.is_away and time.monotonic() < deadline:
            time.sleep(0.01)
        [told] = admitted(quotas, "r2")
        assert told["x-ratelimit-remaining-requests"] == "1"
    finally:
        quotas.stop()
