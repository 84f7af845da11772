"""Spans of time as people ask for them, in zones whose days have 23, 24 and 25 hours, and the rows that hold them."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.usage.spans import HOUR_S, pieces_of, span_of
from lingbi.errors import ConfigurationError

SHANGHAI, BERLIN, KOLKATA = map(ZoneInfo, ("Asia/Shanghai", "Europe/Berlin", "Asia/Kolkata"))
NOW = datetime(2026, 11, 29, 23, 30, tzinfo=SHANGHAI).timestamp()


def span(since=None, until=None, zone=SHANGHAI):
    return span_of(since, until, NOW, zone)


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        (None, None, (None, None)),
        ("2026-05-01", "2026-05-01", ("2026-05-01", "2026-05-01")),
        ("2026-02", "2028-02", ("2026-02-01", "2028-02-29")),
        ("today", None, ("2026-11-29", None)),
        ("1d", None, ("2026-11-29", None)),
        ("7d", None, ("2026-11-23", None)),
        (None, "2026-12", (None, "2026-12-31")),
    ],
)
def test_days(since, until, days):
    assert span(since, until).days == days
    assert not span(since, until).is_of_hours


def test_today_is_the_labs():
    assert span_of("today", None, NOW, BERLIN).days == ("2026-11-29", None)
    assert span_of("today", None, NOW, ZoneInfo("Pacific/Auckland")).days == ("2026-11-30", None)


def test_hours_of_a_day_are_those_of_its_clock():
    first, last = span("2026-05-01", "2026-05-01").hours
    start = datetime(2026, 5, 1, tzinfo=SHANGHAI).timestamp()
    assert (first * HOUR_S, last - first + 1) == (start, 24)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_days_on_which_the_clock_is_put_have_other_hours(day, hours):
    first, last = span(day, day, BERLIN).hours
    assert last - first + 1 == hours


def test_an_hour_that_the_clock_shows_twice_is_both():
    first, last = span("2026-10-25T02", "2026-10-25T02", BERLIN).hours
    assert last - first + 1 == 2
    assert span("2026-10-25T02", None, BERLIN).is_of_hours


def test_days_that_begin_at_half_an_hour_have_whole_hours():
    first, last = span("2026-05-01", "2026-05-01", KOLKATA).hours
    start = datetime(2026, 5, 1, tzinfo=KOLKATA).timestamp()
    assert first * HOUR_S == start - HOUR_S / 2 and last - first + 1 == 25


def test_the_last_hours_include_this_one():
    first, last = span("24h").hours
    assert (first, last) == (int(NOW // HOUR_S) - 23, None)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026", "2026-13", "2026-02-30", "2026-05-01T24", "-1d", "'; drop table", "２d"]
    + ["0001-01-01", "0001-01", "0001-12-31T23", "9999-01-01", "9999-12-31T23"],
)
def test_what_is_no_time_is_refused_with_the_forms(text):
    with pytest.raises(ConfigurationError, match="since .* is no time; give a day"):
        span_of(text or " ", None, NOW, SHANGHAI)


def test_the_wrong_order_is_refused():
    with pytest.raises(ConfigurationError, match="is after until"):
        span("2026-05-02", "2026-05-01")
    span("2026-05-01T14", "2026-05-01T14")


@pytest.mark.parametrize(
    ("since", "until", "months", "days"),
    [
        (None, None, (None, None), ()),
        ("2026-05", "2026-06", ("2026-05", "2026-06"), ()),
        ("2026-05-01", None, ("2026-05", None), ()),
        ("2026-05-02", None, ("2026-06", None), (("2026-05-02", "2026-05-31"),)),
        (None, "2026-05-30", (None, "2026-04"), (("2026-05-01", "2026-05-30"),)),
        ("2026-05-02", "2026-05-30", None, (("2026-05-02", "2026-05-30"),)),
        ("2026-05-01", "2026-05-30", None, (("2026-05-01", "2026-05-30"),)),
        ("2026-05-02", "2026-05-31", None, (("2026-05-02", "2026-05-31"),)),
        ("2026-05-31", "2026-06-01", None, (("2026-05-31", "2026-05-31"), ("2026-06-01", "2026-06-01"))),
        (
            "2025-12-31",
            "2027-01-01",
            ("2026-01", "2026-12"),
            (("2025-12-31", "2025-12-31"), ("2027-01-01", "2027-01-01")),
        ),
    ],
)
def test_few_rows_hold_a_span(since, until, months, days):
    found = pieces_of(span(since, until))
    assert (found.months, found.days) == (months, days)


def test_pieces_are_exactly_the_days_of_their_span():
    begin = date(2026, 1, 1)
    for first in range(0, 120, 7):
        for length in range(0, 100, 9):
            since, until = begin + timedelta(first), begin + timedelta(first + length)
            assert covered(pieces_of(span(since.isoformat(), until.isoformat()))) == [
                since + timedelta(number) for number in range(length + 1)
            ]


def covered(pieces) -> list:
    found = []
    for edge in pieces.days:
        day, last = map(date.fromisoformat, edge)
        while day <= last:
            found.append(day)
            day += timedelta(1)
    if pieces.months:
        day = date.fromisoformat(f"{pieces.months[0]}-01")
        while day.isoformat()[:7] <= pieces.months[1]:
            found.append(day)
            day += timedelta(1)
    return sorted(found)
