"""How much of their limits keys and groups have used, from the reports of this day and this month."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lingbi_ui.accounts.rows import Limit, total_tokens
from lingbi_ui.accounts.use import Sums, by

CLIENT_LEFT = 499
Subject = tuple[str, str]  # `key` or `group`, and its name
Used = dict[tuple[str, Subject], Sums]  # by period; nobody keeps what a minute had


def used_of(reports: Mapping[str, Iterable[Mapping[str, Any]]], groups: Mapping[str, str]) -> Used:
    """What counts against limits. reports: {period: rows by key and status}; groups: {key: its group}."""
    found: Used = {}
    for period, rows in reports.items():
        for key, sums in by(filter(lambda row: not _is_refused(row), rows), "key").items():
            found[period, ("key", key)] = sums
            if groups.get(key):
                _add(found, (period, ("group", groups[key])), sums)
    return found


def _add(found: Used, place: tuple[str, Subject], sums: Sums) -> None:
    known = found.get(place, {})
    found[place] = {name: value + known.get(name, 0) for name, value in sums.items()}


def _is_refused(row: Mapping[str, Any]) -> bool:
    """Whether rows of this status are of requests that were refused, which count against no limit."""
    status = int(row.get("status") or 0)
    return 400 <= status < 500 and status != CLIENT_LEFT


def told(limits: Iterable[Limit], key: str, group: str, used: Used) -> tuple[Limit, ...]:
    """Limits of a key, or of a group where `key` is empty, with what is used of them."""
    return tuple(replace(one, used=_measured(one, key, group, used)) for one in limits)


def _measured(limit: Limit, key: str, group: str, used: Used) -> int | None:
    subject = ("group", group) if limit.subject_kind == "group" else ("key", key)
    if limit.period == "minute" or not subject[1]:
        return None
    sums = used.get((limit.period, subject), {})
    return int(total_tokens(sums) if limit.measure == "tokens" else sums.get(limit.measure, 0))
