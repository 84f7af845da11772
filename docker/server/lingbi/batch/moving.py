"""All that one accounts' database and its folder of uploads hold, put into others that hold nothing yet.

It goes from SQLite to PostgreSQL, or back. This is above all tables of the database: whoever walks them must have imported each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database
from lingbi.accounts.tables import holds, metadata
from lingbi.batch.files import STORED
from lingbi.batch.storage import PART_BYTES, Folder, Parts, Storage
from lingbi.batch.store import Store
from lingbi.batch.tables import batch_workers, file_parts, files
from lingbi.errors import ConfigurationError

AT_ONCE = 500  # rows that are in memory
PASSING = (holds, batch_workers)  # of requests and workers that run; nobody's do while this does
CONTENTS = "contents of files"
TOLD = 3  # missing contents that are named


def move(source: Store, target: Store, is_missing_ok: bool = False) -> dict[str, int]:
    """{table, or CONTENTS: how many were copied}. Raises ConfigurationError, OSError and DatabaseAway.

    ConfigurationError: the target holds anything, or the content of an uploaded file is missing (unless is_missing_ok). No
    server may use either meanwhile. It is one transaction: afterwards all is there, or nothing.
    """
    for database in (source.database, target.database):
        database.bring_up_to_date()
    with contextlib.ExitStack() as undo:
        with source.database.read() as there, target.database.begin() as here:
            source.database.take_time(there)  # while one of them works, the other one waits
            target.database.take_time(here)
            _check_empty(here, target.database)
            wanted = [] if _is_same(source.storage, target.storage) else _stored(there)
            missing = _missing(source.storage, wanted)
            if missing and not is_missing_ok:
                raise ConfigurationError(_told(source.storage, missing))
            copied = {table.name: _copy(table, there, here) for table in _tables()}
            present = [file_id for file_id in wanted if file_id not in missing]
            copied[CONTENTS] = _copy_contents(source.storage, target.storage, present, here, undo)
            if not target.database.is_sqlite:
                _count_on(here)
        undo.pop_all()
    return copied


def _tables() -> list[sa.Table]:
    """Those that are copied as they are; contents in the database go the way of those in a folder."""
    return [table for table in metadata.sorted_tables if table not in (*PASSING, file_parts)]


def _check_empty(connection: Connection, database: Database) -> None:
    for table in metadata.sorted_tables:
        if table.name != "changes" and connection.execute(sa.select(sa.func.count()).select_from(table)).scalar():
            raise ConfigurationError(
                f"the accounts' database {database} holds {table.name} already; move into one that no server has used yet"
            )


def _copy(table: sa.Table, there: Connection, here: Connection) -> int:
    here.execute(sa.delete(table))  # of `changes`, whose one row the migration makes
    count = 0
    found = there.execute(sa.select(table), execution_options={"yield_per": AT_ONCE})
    for rows in found.mappings().partitions():
        here.execute(sa.insert(table), [dict(row) for row in rows])
        count += len(rows)
    return count


def _is_same(source: Storage, target: Storage) -> bool:
    """Whether both are one folder, as LINGBI_FILES_DIR names it."""
    return isinstance(source, Folder) and isinstance(target, Folder) and source.path.resolve() == target.path.resolve()


def _stored(connection: Connection) -> list[str]:
    """The ids of uploaded files; those that were being uploaded or removed are nobody's to have."""
    return list(connection.execute(sa.select(files.c.id).where(files.c.kind == STORED)).scalars())


def _missing(storage: Storage, wanted: Iterable[str]) -> list[str]:
    missing = []
    for file_id in wanted:
        try:
            storage.open(file_id).close()
        except FileNotFoundError:
            missing.append(file_id)
    return missing


def _told(storage: Storage, missing: Collection[str]) -> str:
    where = storage.path if isinstance(storage, Folder) else "the database"
    named = ", ".join([*list(missing)[:TOLD], *["…"][: len(missing) > TOLD]])
    return (
        f"the contents of {len(missing)} uploaded files ({named}) are not in {where}; name their folder with --files, "
        "or move without them with --missing-ok"
    )


def _copy_contents(
    source: Storage, target: Storage, wanted: Collection[str], here: Connection, undo: contextlib.ExitStack[Any]
) -> int:
    """Copy contents piece by piece: into the database with the rest, into a folder so that `undo` removes them."""
    into = Parts(target.database, here) if isinstance(target, Parts) else target
    for file_id in wanted:
        if not isinstance(target, Parts):
            undo.callback(target.remove, file_id)
        with source.open(file_id) as file:
            writer = into.begin(file_id)
            while piece := file.read(PART_BYTES):
                writer.write(piece)
            writer.finish()
    return len(wanted)


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
