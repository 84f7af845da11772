"""What counts against limits, where the clocks of hosts differ: all go by the database's."""

import time
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database
from lingbi.accounts.entries import Entry
from lingbi.accounts.facts import PERIODS, KeyFacts, Limit
from lingbi.accounts.quotas.decision import Asked
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use
from lingbi.accounts.tables import quota_use

HOUR_S, TOKENS = 3600, 60
UTC = ZoneInfo("UTC")
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
        entry = Entry("r1", time.time(), "alice", "demo", 200, 1, completion_tokens=TOKENS)
        with database.begin() as connection:
            add_use(connection, database, [entry], {"alice": KEY}.get, UTC)
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
