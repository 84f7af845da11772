"""What was used: the rows of a report, added up and made ready to show."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lingbi_ui.accounts.figures import day, days
from lingbi_ui.accounts.rows import total_tokens

COUNTED = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "images", "gpu_seconds")
TREND_DAYS, MAX_TREND_DAYS = 30, 366
TOP = 10
CHARTS = {  # what the chart can show: the parts of a bar, from the bottom
    "tokens": ("prompt_tokens", "completion_tokens"),
    "requests": ("requests",),
    "images": ("images",),
    "gpu": ("gpu_seconds",),
}
Sums = dict[str, float]


def summed(rows: Iterable[Mapping[str, Any]]) -> Sums:
    """All rows together."""
    sums = dict.fromkeys(COUNTED, 0.0)
    for row in rows:
        for name in COUNTED:
            sums[name] += row.get(name) or 0
    return sums


def by(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, Sums]:
    """{key, model, day or status: its sums}."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row.get(name, "")), []).append(row)
    return {value: summed(own) for value, own in found.items()}


def top(sums: Mapping[str, Sums], most: int = TOP) -> list[tuple[str, Sums]]:
    """Those with the most tokens, and then the most requests."""
    return sorted(sums.items(), key=lambda item: (-total_tokens(item[1]), -item[1]["requests"], item[0]))[:most]


@dataclass(frozen=True)
class Span:
    """Days from `since` up to, and with, `last`."""

    since: datetime.date
    last: datetime.date

    @property
    def days(self) -> list[str]:
        return days(self.since, self.last)


def span_of(asked: Mapping[str, str], today: datetime.date) -> Span:
    """The days that the query of an address asks for: of what makes no sense in it the last thirty; at most a year."""
    last = day(asked.get("until", "")) or today
    last = last if last.year < datetime.MAXYEAR else today
    begun = day(asked.get("since", ""))
    if begun is None or begun > last:
        begun = last - datetime.timedelta(min(TREND_DAYS - 1, (last - datetime.date.min).days))
    return Span(max(begun, last - datetime.timedelta(min(MAX_TREND_DAYS - 1, (last - datetime.date.min).days))), last)


def trend(sums: Mapping[str, Sums], span: Span, chart: str) -> list[tuple[int, ...]]:
    """The parts of each day's bar."""
    nothing: Sums = summed(())
    return [tuple(int(sums.get(name, nothing)[part]) for part in CHARTS[chart]) for name in span.days]
