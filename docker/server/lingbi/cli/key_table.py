"""Keys and groups as a table for people."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

NOTHING = "-"
SCALES = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def keys_table(keys: list[dict[str, Any]], zone: ZoneInfo) -> str:
    """One line a key; limits, models and ends are those in force, with what the group says."""
    heads = ("NAME", "STATE", "GROUP", "AT ONCE", "WEIGHT", "LIMITS", "MODELS", "ENDS", "OWNER", "NOTE")
    return _table(heads, [_key_row(key, zone) for key in keys])


def _key_row(key: dict[str, Any], zone: ZoneInfo) -> tuple[str, ...]:
    now = key["in_force"]
    limits = [
        f"{count(limit['most'])} {limit['measure']}/{limit['period']}{OF[limit['of']]}" for limit in now["limits"]
    ]
    return (
        key["name"] + (" (admin)" if key["is_admin"] else ""),
        key["state"],
        key["group"] or NOTHING,
        _or_nothing(now["concurrency"]),
        _or_nothing(now["weight"]),
        ", ".join(limits) or NOTHING,
        models(now["models"]),
        moment(now["ends_at"], zone),
        key["owner"] or NOTHING,
        key["note"] or NOTHING,
    )


OF = {"key": "", "member": "", "group": " (group)"}


def groups_table(groups: list[dict[str, Any]], zone: ZoneInfo) -> str:
    """One line a group."""
    heads = ("NAME", "KEYS", "AT ONCE", "LIMITS", "AT ONCE EACH", "LIMITS EACH", "MODELS", "ENDS", "NOTE")
    rows: list[tuple[str, ...]] = [
        (
            group["name"],
            str(len(group["keys"])),
            _or_nothing(group["concurrency"]),
            _limits(group["limits"]),
            _or_nothing(group["member_concurrency"]),
            _limits(group["members"]),
            models(group["models"]),
            moment(group["ends_at"], zone),
            group["note"] or NOTHING,
        )
        for group in groups
    ]
    return _table(heads, rows)


def _limits(limits: dict[str, dict[str, int]]) -> str:
    found = (f"{count(most)} {name}/{period}" for name, periods in limits.items() for period, most in periods.items())
    return ", ".join(found) or NOTHING


def models(names: Iterable[str] | None) -> str:
    return "all" if names is None else ",".join(names) or "none"


def moment(at: float | None, zone: ZoneInfo) -> str:
    """A time as the lab's clock shows it; the end of a day as that day."""
    if at is None:
        return "never"
    time = datetime.fromtimestamp(at, zone)
    if (time.hour, time.minute, time.second) == (0, 0, 0):
        return f"{time - timedelta(days=1):%Y-%m-%d}"
    return f"{time:%Y-%m-%d %H:%M}"


def count(number: int) -> str:
    """100k for 100000; whole, so that it can be given back."""
    for scale, letter in SCALES:
        if number and number % scale == 0:
            return f"{number // scale}{letter}"
    return str(number)


def _or_nothing(number: int | None) -> str:
    return NOTHING if number is None else str(number)


def _table(heads: Sequence[str], rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows))
    return "\n".join(line.rstrip() for line in lines)
