"""All that owners have of files and batches: given out with their usage, or taken away.

What is taken away is nobody's at once, in one short transaction; workers that ask its lines find them gone and write nothing.
It is then removed a little at a time, by whoever took it away or by any worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database, now_in
from lingbi.accounts.keys import changes
from lingbi.accounts.keys.changes import Change
from lingbi.accounts.usage import owners
from lingbi.accounts.usage.owners import NOBODY
from lingbi.batch.files import REMOVED, UPLOADING
from lingbi.batch.states import OPEN
from lingbi.batch.store import Store
from lingbi.batch.tables import DONE, batch_lines, batches, files
from lingbi.batch.uploads import remove_all

AT_ONCE = 1000  # lines that are read, or removed, in a transaction
Row = dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """How much was taken away; results: of lines."""

    files: int = 0
    batches: int = 0
    results: int = 0

    def __str__(self) -> str:
        return f"files: {self.files}, batches: {self.batches}, results: {self.results}"

    def __bool__(self) -> bool:
        return bool(self.files or self.batches)


def export(database: Database, owner: str | None, key: str | None = None) -> Iterator[tuple[str, Iterable[Row]]]:
    """(table, its rows about an owner), lines a few at a time. Raises ConfigurationError or DatabaseAway.

    The contents of uploads are not in it; their owner has them.
    """
    with database.read() as connection:
        names = owners.names_of(connection, owner, key)
    return _tables(database, names)


def _tables(database: Database, names: list[str]) -> Iterator[tuple[str, Iterable[Row]]]:
    yield from owners.export(database, names).items()
    mine = {table.name: sa.select(table).where(table.c.owner.in_(names)) for table in (files, batches)}
    with database.read() as connection:
        found = {name: [dict(row) for row in connection.execute(rows).mappings()] for name, rows in mine.items()}
    yield from found.items()
    yield batch_lines.name, (row for batch in found[batches.name] for row in _lines(database, batch["id"]))


def _lines(database: Database, batch_id: str) -> Iterator[Row]:
    last = 0
    columns = batch_lines.c
    while True:
        asked = sa.select(batch_lines).where(columns.batch_id == batch_id, columns.line > last)
        with database.read() as connection:
            found = [dict(row) for row in connection.execute(asked.order_by(columns.line).limit(AT_ONCE)).mappings()]
        if not found:
            return
        yield from found
        last = found[-1]["line"]


def erase(store: Store, owner: str | None, key: str | None = None) -> tuple[list[str], Taken]:
    """Make an owner's usage nobody's, and remove the files, batches and results; returns the names of the keys.

    Raises ConfigurationError or DatabaseAway.
    """
    with store.database.begin() as connection:
        names = owners.names_of(connection, owner, key)
        taken = take_away(connection, names)
        owners.erase(connection, store.database, names)
    clear(store)
    return names, taken


def add_key(database: Database, name: str, change: Change) -> tuple[str, Taken]:
    """Make a key, as accounts.keys.changes does; of a name that was revoked, take away what the former holder had.

    Returns the key, and what was taken away, which workers then remove.
    """
    taken = []

    def begin_anew(connection: Connection) -> None:
        taken.append(take_away(connection, [name]))

    made = changes.add_key(database, name, change, begin_anew)
    return made, taken[0] if taken else Taken()


def take_away(connection: Connection, names: list[str]) -> Taken:
    """Make the files and batches of these keys nobody's; a batch that has not ended is cancelled."""
    taken = _count(connection, names)
    is_open = batches.c.status.in_(OPEN)
    ending = {
        "owner": NOBODY,
        "status": sa.case((is_open, "cancelled"), else_=batches.c.status),
        "cancelled_at": sa.case((is_open, now_in(connection)), else_=batches.c.cancelled_at),
    }
    # Batches first: one that ends just now makes a file of its results, which is then found.
    connection.execute(sa.update(batches).where(batches.c.owner.in_(names)).values(ending))
    hiding = {"owner": NOBODY, "kind": REMOVED, "expires_at": 0.0}
    connection.execute(sa.update(files).where(files.c.owner.in_(names)).values(hiding))
    return taken


def _count(connection: Connection, names: list[str]) -> Taken:
    count = sa.select(sa.func.count())
    of_mine = sa.select(batches.c.id).where(batches.c.owner.in_(names))
    asked = (
        count.where(files.c.owner.in_(names), files.c.kind.not_in((UPLOADING, REMOVED))),
        count.select_from(of_mine.subquery()),
        count.where(batch_lines.c.batch_id.in_(of_mine), batch_lines.c.state == DONE),
    )
    return Taken(*(connection.execute(one).scalar_one() for one in asked))


def clear(store: Store) -> None:
    """Remove what was taken away. Raises DatabaseAway; a content that cannot be removed is logged, and left to a worker."""
    with store.database.read() as connection:
        rows = connection.execute(sa.select(files).where(files.c.owner == NOBODY)).mappings().all()
    remove_all(store, rows)
    while clear_some(store.database):
        pass


def clear_some(database: Database) -> bool:
    """Remove some lines of a batch that was taken away, and the batch with its last; whether there was one."""
    columns = batch_lines.c
    with database.begin() as connection:
        asked = sa.select(batches.c.id).where(batches.c.owner == NOBODY).order_by(batches.c.created_at).limit(1)
        batch_id = connection.execute(asked).scalar()
        if batch_id is None:
            return False
        left = sa.select(columns.line).where(columns.batch_id == batch_id).order_by(columns.line).limit(AT_ONCE)
        some = left if database.is_sqlite else left.with_for_update(skip_locked=True)
        lines = connection.execute(some).scalars().all()
        connection.execute(sa.delete(batch_lines).where(columns.batch_id == batch_id, columns.line.in_(lines)))
        if connection.execute(left).first() is None:
            connection.execute(sa.delete(batches).where(batches.c.id == batch_id))
        return True
