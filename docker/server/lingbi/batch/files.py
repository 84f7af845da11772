"""The rows of files: whose they are, how large, until when."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from lingbi.batch.tables import files

PREFIX = "file-"


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + secrets.token_hex(12)


@dataclass(frozen=True)
class Page:
    """A part of a list, as OpenAI's reference has it: the items after the one with the id `after`, at most `limit`."""

    limit: int = 20
    after: str | None = None
    is_ascending: bool = False


def add(connection: Connection, **columns: Any) -> RowMapping:
    """Note a file; returns its row."""
    values: dict[str, Any] = {"id": new_id(PREFIX), "kind": "stored", "created_at": time.time()} | columns
    connection.execute(sa.insert(files).values(**values))
    row = find(connection, values["owner"], values["id"])
    assert row is not None
    return row


def find(connection: Connection, owner: str, file_id: str) -> RowMapping | None:
    """An owner's file that has not expired; None for another's too, so that nobody learns which there are."""
    asked = sa.select(files).where(files.c.id == file_id, files.c.owner == owner, _is_alive())
    return connection.execute(asked).mappings().first()


def listed(connection: Connection, owner: str, page: Page, purpose: str | None = None) -> list[RowMapping]:
    """An owner's files; one more than the page holds, if there are more."""
    asked = sa.select(files).where(files.c.owner == owner, _is_alive())
    if purpose:
        asked = asked.where(files.c.purpose == purpose)
    return paged(connection, files, asked, owner, page)


def paged(
    connection: Connection, table: sa.Table, asked: sa.Select[Any], owner: str | None, page: Page
) -> list[RowMapping]:
    """The rows of a page of an owner's list (None: of everybody's), by the time at which they were made."""
    keys = (table.c.created_at, table.c.id)
    if page.after:
        place = sa.select(*keys).where(table.c.id == page.after)
        place = place if owner is None else place.where(table.c.owner == owner)
        after = connection.execute(place).first()
        if after is None:
            return []
        here, there = sa.tuple_(*keys), sa.tuple_(*map(sa.literal, after))
        asked = asked.where(here > there if page.is_ascending else here < there)
    order = [key.asc() if page.is_ascending else key.desc() for key in keys]
    return list(connection.execute(asked.order_by(*order).limit(page.limit + 1)).mappings())


def held_bytes(connection: Connection, owner: str) -> int:
    """What an owner's stored files take, bytes."""
    asked = sa.select(sa.func.coalesce(sa.func.sum(files.c.bytes), 0))
    return int(connection.execute(asked.where(files.c.owner == owner, files.c.kind == "stored")).scalar_one())


def remove(connection: Connection, file_id: str) -> None:
    """Forget a file's row."""
    connection.execute(sa.delete(files).where(files.c.id == file_id))


def ended(connection: Connection, limit: int = 100) -> list[RowMapping]:
    """Files whose life time is over."""
    asked = sa.select(files).where(files.c.expires_at <= time.time()).limit(limit)
    return list(connection.execute(asked).mappings())


def _is_alive() -> sa.ColumnElement[bool]:
    return sa.or_(files.c.expires_at.is_(None), files.c.expires_at > time.time())
