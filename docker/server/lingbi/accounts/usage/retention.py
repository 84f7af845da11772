"""How long usage is kept: by the hour some months, by day and month some years. What is older goes, a little at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from lingbi.accounts.database import Database
from lingbi.accounts.tables import total_days, total_hours, usage_days, usage_hours, usage_months
from lingbi.accounts.usage.spans import HOUR_S

PERIODS: dict[sa.Table, str] = {
    usage_hours: "hour",
    total_hours: "hour",
    usage_days: "day",
    total_days: "day",
    usage_months: "month",
}


@dataclass(frozen=True)
class Kept:
    """Settings: the days for which hours are kept, and the months for which days and months are."""

    days: int
    months: int


def first_kept(kept: Kept, now: float, zone: ZoneInfo) -> dict[str, int | str]:
    """The first hour, day and month that stay. Days go by whole months, so that a month is there with all its days."""
    today = datetime.fromtimestamp(now, zone).date()
    month = today.year * 12 + today.month - 1 - (kept.months - 1)
    first = date(max(month // 12, 1), month % 12 + 1, 1)
    start = datetime.combine(today - timedelta(days=kept.days - 1), datetime.min.time(), zone)
    return {"hour": int(start.timestamp() // HOUR_S), "day": first.isoformat(), "month": first.isoformat()[:7]}


def remove_old(database: Database, kept: Kept, now: float, zone: ZoneInfo, most: int = 2) -> bool:
    """Remove what is older, at most so many periods of each table; whether more may be left. Raises DatabaseAway.

    Each period goes in a transaction of its own, which takes milliseconds: whoever counts meanwhile does not wait long.
    """
    first = first_kept(kept, now, zone)
    left = [_remove(database, table, table.c[period], first[period], most) for table, period in PERIODS.items()]
    return any(left)


def _remove(database: Database, table: sa.Table, column: sa.Column[Any], first: Any, most: int) -> bool:
    for _ in range(most):
        with database.begin() as connection:
            oldest = connection.execute(sa.select(sa.func.min(column))).scalar()
            if oldest is None or oldest >= first:
                return False
            connection.execute(sa.delete(table).where(column == oldest))
    return True
