"""What one key has used today and this month, by model."""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lingbi.accounts.entries import NOTHING, Counts
from lingbi.accounts.periods import day_of
from lingbi.accounts.tables import usage_days, usage_months

if TYPE_CHECKING:
    from lingbi.accounts.database import Database

Told = dict[str, Any]


def own_report(database: Database, key: str, now: float, zone: tzinfo) -> dict[str, Told]:
    """{"day": counts, "month": counts}, each also by model. Raises DatabaseAway."""
    day = day_of(now, zone).isoformat()
    with database.read() as connection:
        return {
            "day": _told(connection.execute(_by_model(usage_days), {"key_": key, "period": day})),
            "month": _told(connection.execute(_by_model(usage_months), {"key_": key, "period": day[:7]})),
        }


def _by_model(table: sa.Table) -> sa.Select[Any]:
    period, sums = table.primary_key.columns[0], (sa.func.sum(table.c[name]) for name in Counts._fields)
    own = (table.c.key == sa.bindparam("key_")) & (period == sa.bindparam("period"))
    return sa.select(table.c.model, *sums).where(own).group_by(table.c.model).order_by(table.c.model)


def _told(rows: sa.CursorResult[Any]) -> Told:
    models = {row[0]: Counts(*map(int, row[1:])) for row in rows}
    total = NOTHING
    for counts in models.values():
        total = total.plus(counts)
    return counts_of(total) | {"models": [{"model": model} | counts_of(counts) for model, counts in models.items()]}


def counts_of(counts: Counts) -> Told:
    """Counts as the API tells them, with the GPU's time in seconds."""
    told = counts._asdict()
    milliseconds = told.pop("gpu_ms")
    return told | {"gpu_seconds": milliseconds / 1000}
