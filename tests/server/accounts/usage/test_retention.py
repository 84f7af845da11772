"""Old usage goes: hours by days, days and months by whole months; what stays is untouched."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.tables import total_days, total_hours, usage_days, usage_hours, usage_months
from lingbi.accounts.usage.retention import Kept, first_kept, remove_old
from tests.server.accounts.ledger.parts import sums
from tests.server.accounts.usage.rows import entries, expected, fill, value

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 5, 7, 12, tzinfo=SHANGHAI).timestamp()


def test_the_first_that_stay():
    first = first_kept(Kept(90, 36), NOW, SHANGHAI)
    assert (first["day"], first["month"]) == ("2023-06-01", "2023-06")
    assert first["hour"] * 3600 == datetime(2026, 2, 7, tzinfo=SHANGHAI).timestamp()
    assert first_kept(Kept(2, 99999), NOW, SHANGHAI)["month"].startswith("0001")


def test_old_rows_go_and_others_stay(any_database):
    found = entries(SHANGHAI, 300)
    database = fill(any_database, SHANGHAI, found)
    kept = Kept(days=60, months=3)
    assert remove_old(database, kept, NOW, SHANGHAI, most=3)  # a little at a time
    while remove_old(database, kept, NOW, SHANGHAI):
        pass
    first = first_kept(kept, NOW, SHANGHAI)

    def right(name, *by):
        return expected(found, by, lambda entry: when(entry, name) >= first[name], SHANGHAI)

    assert sums(database, usage_hours, ("key", "model")) == right("hour", "key", "model") != {}
    assert sums(database, total_hours, ("model",)) == right("hour", "model")
    assert sums(database, usage_days, ("key", "day")) == right("day", "key", "day")
    assert sums(database, total_days, ("day",)) == right("day", "day")
    assert sums(database, usage_months, ("key", "month")) == right("month", "key", "month")
    assert not remove_old(database, kept, NOW, SHANGHAI)
    database.engine.dispose()


def when(entry, name):
    return int(entry.at // 3600) if name == "hour" else value(entry, name, SHANGHAI)


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_a_clock_that_jumped_is_no_fault(any_database, clock):
    database = fill(any_database, SHANGHAI, entries(SHANGHAI, 5))
    remove_old(database, Kept(90, 36), clock, SHANGHAI)
    database.engine.dispose()
