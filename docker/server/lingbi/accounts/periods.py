"""When the minute, the day and the month that hold a moment began, and when they end, by the clock of the lab's zone.

Days follow that clock: one has 23 or 25 hours where it is put forward or back, and one that a place left out has none.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

MINUTE_S = 60
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Span:
    """A period: from `start` until just before `end`, seconds since the epoch."""

    start: int
    end: int


def span_of(period: str, at: float, zone: tzinfo) -> Span:
    """The minute, day or month (one of PERIODS in facts.py) that holds a time, seconds since the epoch."""
    if period == "minute":
        start = int(at // MINUTE_S) * MINUTE_S
        return Span(start, start + MINUTE_S)
    day = day_of(at, zone)
    if period == "day":
        return Span(_midnight(day, zone), _midnight(day + ONE_DAY, zone))
    first = day.replace(day=1)
    return Span(_midnight(first, zone), _midnight(_next_month(first), zone))


def day_of(at: float, zone: tzinfo) -> date:
    """The day whose midnights enclose a time.

    It is not always the date on the clock: one that goes back over midnight shows yesterday's again, and a day that has
    begun goes on nevertheless, so that every moment is of one day only.
    """
    day = datetime.fromtimestamp(at, zone).date()
    while at < _midnight(day, zone):
        day -= ONE_DAY
    while at >= _midnight(day + ONE_DAY, zone):
        day += ONE_DAY
    return day


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _midnight(day: date, zone: tzinfo) -> int:
    """When a day begins: at the first of two midnights, and where a clock leaves midnight out, when it goes on."""
    return int(datetime.combine(day, time(), zone).timestamp())
