"""Additions to accounts as rows of the usage tables, and the statements that add them to what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.entries import NOTHING, QUARTER_S, Counts, Entry
from lingbi.accounts.periods import day_of
from lingbi.accounts.tables import total_days, total_hours, usage_days, usage_hours, usage_months

HOUR_S = 3600
Row = dict[str, Any]


@dataclass(frozen=True)
class Period:
    """When something is counted, as the tables have it."""

    hour: int
    day: str

    @property
    def month(self) -> str:
        """The day's month."""
        return self.day[:7]


def period_of(at: float, zone: ZoneInfo) -> Period:
    """The hour since the epoch and the lab's day of a time."""
    return Period(int(at // HOUR_S), day_of(at, zone).isoformat())


# What a row of each table is of: its columns but for the counts.
SUBJECTS: dict[sa.Table, Callable[[Period, Entry], tuple[Any, ...]]] = {
    usage_hours: lambda period, entry: (period.hour, entry.key, entry.model, entry.status),
    usage_days: lambda period, entry: (period.day, entry.key, entry.model, entry.status),
    usage_months: lambda period, entry: (period.month, entry.key, entry.model, entry.status),
    total_hours: lambda period, entry: (period.hour, entry.model, entry.status),
    total_days: lambda period, entry: (period.day, entry.model, entry.status),
}


def rows_of(entries: Iterable[Entry], zone: ZoneInfo) -> dict[sa.Table, list[Row]]:
    """The rows that entries add to each table, in the order of their keys: so that two writers never wait for each other."""
    sums: dict[sa.Table, dict[tuple[Any, ...], Counts]] = {table: {} for table in SUBJECTS}
    for entry in _joined(entries):
        period = period_of(entry.at, zone)
        for table, subject_of in SUBJECTS.items():
            subject = subject_of(period, entry)
            sums[table][subject] = sums[table].get(subject, NOTHING).plus(entry.counts)
    return {table: [_row(table, *item) for item in sorted(found.items())] for table, found in sums.items()}


def _joined(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The sums of entries that count under the same in every table: most of them came in the same quarter of an hour."""
    sums: dict[tuple[float, str, str, int | None], Counts] = {}
    for entry in entries:
        subject = (entry.at // QUARTER_S * QUARTER_S, entry.key, entry.model, entry.status)
        sums[subject] = sums[subject].plus(entry.counts) if subject in sums else entry.counts
    return (Entry("", *subject, counts) for subject, counts in sums.items())


def _row(table: sa.Table, subject: tuple[Any, ...], counts: Counts) -> Row:
    names = [column.name for column in table.primary_key.columns]
    return dict(zip(names, subject, strict=True)) | counts._asdict()


def add(connection: Connection, entries: Iterable[Entry], zone: ZoneInfo) -> None:
    """Add entries to the usage tables, within a transaction."""
    for table, rows in rows_of(entries, zone).items():
        if rows:
            connection.execute(_upsert(table), rows)


@cache
def _upsert(table: sa.Table) -> sa.TextClause:
    """The statement that adds a row to what is there, the same for SQLite and PostgreSQL.

    As text: SQLAlchemy would make an INSERT with ON CONFLICT anew each time, which takes ten times as long as all the rest.
    """
    names = [column.name for column in table.columns]
    subject = ", ".join(column.name for column in table.primary_key.columns)
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in Counts._fields)
    values = ", ".join(f":{name}" for name in names)
    return sa.text(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values}) ON CONFLICT ({subject}) DO UPDATE SET {sums}"
    )
