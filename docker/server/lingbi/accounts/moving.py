"""All that one accounts' database holds, put into another that holds nothing yet: from SQLite to PostgreSQL, or back."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database
from lingbi.accounts.tables import holds, metadata
from lingbi.errors import ConfigurationError

AT_ONCE = 1000  # rows that are in memory
PASSING = {holds.name}  # of requests that run; nobody's run while this does


def move(source: Database, target: Database) -> dict[str, int]:
    """{table: its rows that were copied}. Raises ConfigurationError where the target holds anything, and DatabaseAway.

    No server may use either meanwhile. It is one transaction: afterwards all is there, or nothing.
    """
    for database in (source, target):
        database.bring_up_to_date()
    with source.read() as there, target.begin() as here:
        source.take_time(there)  # while one of them works, the other one waits
        target.take_time(here)
        _check_empty(here, target)
        copied = {
            table.name: _copy(table, there, here) for table in metadata.sorted_tables if table.name not in PASSING
        }
        if not target.is_sqlite:
            _count_on(here)
    return copied


def _check_empty(connection: Connection, database: Database) -> None:
    for table in metadata.sorted_tables:
        if table.name != "changes" and connection.execute(sa.select(sa.func.count()).select_from(table)).scalar():
            raise ConfigurationError(
                f"the accounts' database {database} holds {table.name} already; move into one that no server has used yet"
            )


def _copy(table: sa.Table, there: Connection, here: Connection) -> int:
    here.execute(sa.delete(table))  # of `changes`, whose one row the migration makes
    count = 0
    for rows in there.execute(sa.select(table)).mappings().partitions(AT_ONCE):
        here.execute(sa.insert(table), [dict(row) for row in rows])
        count += len(rows)
    return count


def _count_on(connection: Connection) -> None:
    """Have PostgreSQL number new rows behind those that came with their numbers."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        sequence = connection.execute(
            sa.text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        ).scalar()
        last = connection.execute(sa.select(sa.func.max(column))).scalar()
        if sequence and last:
            connection.execute(
                sa.text("SELECT setval(CAST(:name AS regclass), :last)"), {"name": sequence, "last": last}
            )
