"""Numbers and times as people read them."""

import datetime
import math
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAY = "%Y-%m-%d"


def number(value: float | None) -> str:
    """1234567 as 1,234,567; None as a dash."""
    return "–" if value is None else f"{value:,.0f}"


def compact(value: int | None) -> str:
    """A limit as it may be written in a form: 2000000 as 2M; None as nothing."""
    if value is None:
        return ""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value and value % factor == 0:
            return f"{value // factor}{letter}"
    return str(value)


def hours(seconds: float) -> str:
    """GPU time in hours."""
    return f"{seconds / 3600:,.1f}" if seconds >= 360 or not seconds else f"{seconds / 3600:.3f}"


def a_minute(per_s: float) -> str:
    """A rate by the minute: 0.5 a second as 30, and slow ones with one decimal."""
    value = 60 * per_s
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def span(seconds: float) -> tuple[str, dict[str, int]]:
    """A time as the name of a sentence, and what stands in it: 3700 as 1 h 2 min."""
    minutes = math.ceil(seconds / 60)
    if seconds < 60:
        return "span_moment", {}
    if minutes < 60:
        return "span_minutes", {"minutes": minutes}
    if minutes < 48 * 60:
        return "span_hours", {"hours": minutes // 60, "minutes": minutes % 60}
    hours = math.ceil(minutes / 60)
    return "span_days", {"days": hours // 24, "hours": hours % 24}


def percent(used: float, most: float) -> str:
    """How much of `most` is used; of a limit of 0 everything is."""
    return f"{100 * used / most:.0f} %" if most else "100 %"


def zone_of(name: str | None) -> datetime.tzinfo:
    """The time zone of this name, else UTC."""
    try:
        return ZoneInfo(name) if name else datetime.timezone.utc
    except (ZoneInfoNotFoundError, ValueError):
        return datetime.timezone.utc


def moment(at: float | None, zone: datetime.tzinfo = datetime.timezone.utc) -> str:
    """Seconds since the epoch as 2026-05-01 13:05; None, and what no calendar has, as a dash."""
    try:
        return "–" if at is None else datetime.datetime.fromtimestamp(at, zone).strftime(f"{DAY} %H:%M")
    except (OverflowError, ValueError, OSError):
        return "–"


def day(text: str) -> datetime.date | None:
    """The day that a form's field names, or None."""
    try:
        return datetime.datetime.strptime(text, DAY).date()
    except ValueError:
        return None


def days(since: datetime.date, last: datetime.date) -> list[str]:
    """Every day from `since` up to, and with, `last`."""
    return [(since + datetime.timedelta(number)).isoformat() for number in range((last - since).days + 1)]


def last_day(ends_at: float | None, zone: datetime.tzinfo = datetime.timezone.utc) -> str:
    """The last day of a key that ends at this moment; with the time, if that is within a day."""
    told = moment(ends_at, zone)
    if ends_at is None or not told.endswith(" 00:00"):
        return told
    return moment(ends_at - 1, zone).partition(" ")[0]
