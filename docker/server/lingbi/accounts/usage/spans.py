"""Spans of time in the lab's zone, as people ask for them, and the rows that hold them: months, days or hours."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from lingbi.errors import ConfigurationError

HOUR_S = 3600
ONE_DAY = timedelta(days=1)
FIRST_YEAR, LAST_YEAR = 2, 9998  # a day before and after them is still a date, in any time zone
FORMS = "a day (2026-05-01), a month (2026-05), an hour (2026-05-01T14), today, or so long ago (7d, 24h)"
AGO = re.compile(r"([0-9]{1,5})([dh])")
HOUR = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2})")


@dataclass(frozen=True)
class Bound:
    """What a bound names: days, both included, and the seconds since the epoch from which and until before which it is."""

    first_day: date
    last_day: date
    start: float
    end: float
    is_hour: bool = False


@dataclass(frozen=True)
class Span:
    """From one bound to another, both included; None: from the beginning, or until now."""

    since: Bound | None = None
    until: Bound | None = None

    @property
    def is_of_hours(self) -> bool:
        """Whether it begins or ends within a day."""
        return any(bound is not None and bound.is_hour for bound in (self.since, self.until))

    @property
    def days(self) -> tuple[str | None, str | None]:
        """Its first and last day."""
        first = self.since.first_day.isoformat() if self.since else None
        return first, self.until.last_day.isoformat() if self.until else None

    @property
    def hours(self) -> tuple[int | None, int | None]:
        """Its first and last hour since the epoch: where days begin at half an hour, the whole one that has it."""
        first = math.floor(self.since.start / HOUR_S) if self.since else None
        return first, math.ceil(self.until.end / HOUR_S) - 1 if self.until else None


def span_of(since: str | None, until: str | None, now: float, zone: ZoneInfo) -> Span:
    """The span between two bounds, as in FORMS. Raises ConfigurationError, which names what is wrong."""
    span = Span(
        *(_bound(name, text, now, zone) if text else None for name, text in (("since", since), ("until", until)))
    )
    if span.since and span.until and span.since.start >= span.until.end:
        raise ConfigurationError(f"since {since!r} is after until {until!r}; give the earlier one first")
    return span


def _bound(name: str, text: str, now: float, zone: ZoneInfo) -> Bound:
    try:
        bound = _bound_of(text, now, zone)
        if not FIRST_YEAR <= bound.first_day.year <= bound.last_day.year <= LAST_YEAR:
            raise ValueError(bound)
        return bound
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{name} {text[:80]!r} is no time; give {FORMS}") from None


def _bound_of(text: str, now: float, zone: ZoneInfo) -> Bound:
    today = datetime.fromtimestamp(now, zone)
    if text == "today":
        return _of_days(today.date(), today.date(), zone)
    if ago := AGO.fullmatch(text):
        return _ago(int(ago[1]), ago[2], today, zone)
    if hour := HOUR.fullmatch(text):
        return _of_hour(datetime.combine(date.fromisoformat(hour[1]), time(int(hour[2])), zone))
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}", text):
        first = date.fromisoformat(f"{text}-01")
        return _of_days(first, month_end(first), zone)
    day = date.fromisoformat(text)
    return _of_days(day, day, zone)


def _ago(number: int, unit: str, now: datetime, zone: ZoneInfo) -> Bound:
    """The day or the hour with which the last so many begin, the present one included."""
    if unit == "d":
        day = now.date() - timedelta(days=max(number - 1, 0))
        return _of_days(day, day, zone)
    start = (now.timestamp() // HOUR_S - max(number - 1, 0)) * HOUR_S
    return _of_hour(datetime.fromtimestamp(start, zone))


def _of_days(first: date, last: date, zone: ZoneInfo) -> Bound:
    start, end = (datetime.combine(day, time(), zone).timestamp() for day in (first, last + ONE_DAY))
    return Bound(first, last, start, end)


def _of_hour(hour: datetime) -> Bound:
    """An hour of the clock; one that the clock shows twice is both."""
    start = min(hour.replace(fold=fold).timestamp() for fold in (0, 1))
    end = max(hour.replace(fold=fold).timestamp() for fold in (0, 1)) + HOUR_S
    return Bound(hour.date(), hour.date(), start, end, is_hour=True)


def month_end(day: date) -> date:
    """The last day of a day's month."""
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1) - ONE_DAY


@dataclass(frozen=True)
class Pieces:
    """A span of days as whole months, and the days at its edges; each as (first, last), None where it is open."""

    months: tuple[str | None, str | None] | None
    days: tuple[tuple[str, str], ...]


def pieces_of(span: Span) -> Pieces:
    """As few rows as hold a span of days. A span without an end has this month as far as it is."""
    first = span.since.first_day if span.since else None
    last = span.until.last_day if span.until else None
    if first and last and first.day > 1 and last < month_end(first):
        return Pieces(None, ((first.isoformat(), last.isoformat()),))
    edges = []
    if first and first.day > 1:
        edges.append((first.isoformat(), month_end(first).isoformat()))
        first = month_end(first) + ONE_DAY
    if last and last < month_end(last):
        edges.append((last.replace(day=1).isoformat(), last.isoformat()))
        last = last.replace(day=1) - ONE_DAY
    if first and last and first > last:
        return Pieces(None, tuple(edges))
    months = (first.isoformat()[:7] if first else None, last.isoformat()[:7] if last else None)
    return Pieces(months, tuple(edges))
