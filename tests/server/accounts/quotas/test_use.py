"""What counts against limits, and when; where the clocks of hosts differ, all go by the database's."""

import time
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database
from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.facts import PERIODS, KeyFacts, Limit
from lingbi.accounts.quotas.decision import Asked
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use, use_of
from lingbi.accounts.tables import quota_use
from tests.server.accounts.quotas.test_holds import entry, key_of, limit

HOUR_S, TOKENS = 3600, 60
UTC, SHANGHAI = ZoneInfo("UTC"), ZoneInfo("Asia/Shanghai")
KEY = KeyFacts("alice", limits=tuple(Limit("key", "alice", "tokens", period, 100) for period in PERIODS))


@pytest.mark.parametrize("off_s", [-HOUR_S, HOUR_S])
def test_a_host_whose_clock_is_an_hour_off_has_the_limits_of_all(postgres, monkeypatch, off_s):
    """It holds, counts and refuses in the same minute, day and month as a host whose clock is right."""
    database = Database(postgres.url)
    database.bring_up_to_date()
    right, wrong = (Holds(database, name, UTC) for name in ("right", "wrong"))
    real = time.time

    def on_the_wrong_host(work):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + off_s)
            return work()

    def answer():
        assert wrong.take("r1", KEY, Asked(TOKENS))[0].denial is None
        spent = Entry("r1", time.time(), "alice", "demo", 200, Counts(1, completion_tokens=TOKENS))
        with database.begin() as connection:
            add_use(connection, database, [spent], {"alice": KEY}.get, UTC)
        wrong.beat()

    begun = real()
    on_the_wrong_host(answer)
    with database.read() as connection:
        counted = sa.select(quota_use.c.period_start).where(quota_use.c.period == "minute")
        [minute] = connection.execute(counted).scalars()
    assert begun // 60 * 60 <= minute <= real()
    ours, theirs = right.standings(KEY)[1:], on_the_wrong_host(lambda: wrong.standings(KEY))[1:]
    assert ours == theirs and [standing.used for standing in ours] == [TOKENS, TOKENS]
    assert right.take("r2", KEY, Asked(100 - TOKENS))[0].denial is None
    denial = on_the_wrong_host(lambda: wrong.take("r3", KEY, Asked(1)))[0].denial
    assert denial.why == "held" and denial.standing.resets_at > real()
    database.engine.dispose()


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
