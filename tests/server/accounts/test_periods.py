"""Minutes, days and months by a zone's clock, whatever that clock does."""

from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lingbi.accounts.facts import PERIODS
from lingbi.accounts.periods import day_of, span_of

HOUR = 3600
MOMENTS = st.integers(0, 4_000_000_000)  # 1970 to 2096


def at(zone, *clock, fold=0):
    return datetime(*clock, tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    "zone, clock, day_h, month_h",
    [
        ("UTC", (2026, 5, 1, 0, 0), 24, 31 * 24),
        ("Asia/Shanghai", (2024, 2, 29, 23, 59), 24, 29 * 24),
        ("Asia/Shanghai", (2025, 2, 28, 23, 59), 24, 28 * 24),
        ("Asia/Shanghai", (2026, 12, 31, 23, 59), 24, 31 * 24),
        ("Europe/Berlin", (2026, 3, 29, 12, 0), 23, 31 * 24 - 1),
        ("Europe/Berlin", (2026, 10, 25, 12, 0), 25, 31 * 24 + 1),
        ("Australia/Lord_Howe", (2026, 4, 5, 12, 0), 24.5, 30 * 24 + 0.5),
        ("America/Sao_Paulo", (2018, 11, 4, 12, 0), 23, 30 * 24 - 1),  # the clock went from 0:00 to 1:00
        ("America/Havana", (2026, 11, 1, 12, 0), 25, 30 * 24 + 1),  # and here from 1:00 to 0:00
        ("Pacific/Apia", (2011, 12, 31, 12, 0), 24, 30 * 24),  # the 30th was left out
    ],
)
def test_days_and_months_have_the_hours_of_their_clock(zone, clock, day_h, month_h):
    day, month = (span_of(period, at(zone, *clock), ZoneInfo(zone)) for period in ("day", "month"))
    assert (day.end - day.start) / HOUR == day_h
    assert (month.end - month.start) / HOUR == month_h


def test_a_day_begins_and_ends_at_the_labs_midnights():
    day = span_of("day", at("Asia/Shanghai", 2026, 5, 1, 7, 59), ZoneInfo("Asia/Shanghai"))
    assert (day.start, day.end) == (at("Asia/Shanghai", 2026, 5, 1), at("Asia/Shanghai", 2026, 5, 2))
    assert datetime.fromtimestamp(day.start, ZoneInfo("UTC")).isoformat() == "2026-04-30T16:00:00+00:00"


def test_a_month_begins_and_ends_with_the_year():
    december = span_of("month", at("Asia/Shanghai", 2026, 12, 31, 23, 59), ZoneInfo("Asia/Shanghai"))
    assert (december.start, december.end) == (at("Asia/Shanghai", 2026, 12, 1), at("Asia/Shanghai", 2027, 1, 1))


def test_a_day_that_has_begun_goes_on_though_the_clock_shows_yesterday_again():
    # At 0:01 on 2009-11-01, Newfoundland's clocks went back to 23:01 on 31 October.
    zone = ZoneInfo("America/St_Johns")
    again = at("America/St_Johns", 2009, 10, 31, 23, 30, fold=1)
    assert datetime.fromtimestamp(again, zone).day == 31
    assert day_of(again, zone).isoformat() == "2009-11-01"


@example("America/St_Johns", 1257042600)
@example("Pacific/Apia", 1325239200)
@example("America/Toronto", -1601753400)  # in 1919, 0:30 followed 23:29
@given(st.sampled_from(sorted(available_timezones())), MOMENTS)
def test_every_moment_is_of_one_period_and_periods_follow_each_other(zone, moment):
    zone = ZoneInfo(zone)
    for period in PERIODS:
        span = span_of(period, moment, zone)
        assert span.start <= moment < span.end
        assert span_of(period, span.start, zone) == span == span_of(period, span.end - 1, zone)
        assert span_of(period, span.end, zone).start == span.end


@given(st.sampled_from(sorted(available_timezones())), MOMENTS, st.integers(0, 100_000))
def test_a_clock_that_jumps_back_only_finds_the_period_that_it_had_then(zone, moment, back):
    zone = ZoneInfo(zone)
    for period in PERIODS:
        assert span_of(period, moment - back, zone).start <= span_of(period, moment, zone).start
