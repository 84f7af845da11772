"""Entries become rows of hours, days and months: at month ends, where the clock is put, and after it jumped."""

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.ledger.counting import Period, period_of, rows_of
from lingbi.accounts.tables import total_days, total_hours, usage_days, usage_hours, usage_months

BERLIN, KOLKATA, APIA = map(ZoneInfo, ("Europe/Berlin", "Asia/Kolkata", "Pacific/Apia"))


def at(text: str) -> float:
    """A time in UTC, seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("utc", "zone", "day"),
    [
        ("2026-05-31T21:59:59", BERLIN, "2026-05-31"),
        ("2026-05-31T22:00:00", BERLIN, "2026-06-01"),
        ("2026-12-31T22:59:59", BERLIN, "2026-12-31"),
        ("2026-12-31T23:00:00", BERLIN, "2027-01-01"),
        ("2028-02-28T23:00:00", BERLIN, "2028-02-29"),
        ("2026-10-24T22:00:00", BERLIN, "2026-10-25"),  # a day of 25 hours
        ("2026-10-25T22:59:59", BERLIN, "2026-10-25"),
        ("2026-10-25T23:00:00", BERLIN, "2026-10-26"),
        ("2026-03-29T21:59:59", BERLIN, "2026-03-29"),  # a day of 23
        ("2026-03-29T22:00:00", BERLIN, "2026-03-30"),
        ("2026-05-01T18:29:59", KOLKATA, "2026-05-01"),
        ("2026-05-01T18:30:00", KOLKATA, "2026-05-02"),
        ("2011-12-30T10:00:00", APIA, "2011-12-31"),  # the 30th did not exist there
    ],
)
def test_the_labs_day(utc, zone, day):
    assert period_of(at(utc), zone) == Period(int(at(utc) // 3600), day)


def test_one_hour_of_utc_may_have_rows_of_two_days():
    entries = [Entry("", at(f"2026-05-01T18:{minute}:00"), "k", "m", 200, Counts(1)) for minute in (29, 30, 31)]
    rows = rows_of(entries, KOLKATA)
    assert [row["requests"] for row in rows[usage_hours]] == [3]
    assert [(row["day"], row["requests"]) for row in rows[usage_days]] == [("2026-05-01", 1), ("2026-05-02", 2)]
    assert [(row["month"], row["requests"]) for row in rows[usage_months]] == [("2026-05", 3)]


def test_a_clock_that_jumps_counts_where_it_says():
    times = (0.0, at("2026-05-01T12:00:00"), at("2026-05-01T11:00:00"), 32_000_000_000.0)
    rows = rows_of([Entry("", time, "k", "m", 200, Counts(1)) for time in times], BERLIN)
    assert [row["requests"] for row in rows[usage_hours]] == [1] * 4
    assert [row["day"] for row in rows[usage_days]] == ["1970-01-01", "2026-05-01", "2984-01-15"]


def test_rows_are_sums_in_the_order_of_their_keys():
    entries = [Entry("", 1000.0 + number, key, "m", 200, Counts(*range(6))) for number, key in enumerate("babab")]
    rows = rows_of(entries, BERLIN)
    for table in (usage_hours, usage_days, usage_months):
        assert [row["key"] for row in rows[table]] == ["a", "b"]
        assert Counts(*(rows[table][1][name] for name in Counts._fields)) == Counts(*(3 * n for n in range(6)))
    for table in (total_hours, total_days):
        assert [row["gpu_ms"] for row in rows[table]] == [25]


def test_nothing_adds_no_rows():
    assert not any(rows_of([], BERLIN).values())
