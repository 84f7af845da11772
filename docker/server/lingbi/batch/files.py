"""The rows of files: whose they are, how large, until when."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from lingbi.accounts.database import now_in
from lingbi.batch.tables import files

PREFIX = "file-"
STORED, UPLOADING, REMOVED = "stored", "uploading", "removed"
WITH_CONTENT = (STORED, UPLOADING, REMOVED)  # of their own; that of the others is the lines of a batch
UPLOAD_LOST_S = 600.0  # an upload of which so long nothing was heard is taken for dead


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
    values: dict[str, Any] = {"id": new_id(PREFIX), "kind": STORED, "created_at": now_in(connection)} | columns
    connection.execute(sa.insert(files).values(**values))
    row = find(connection, values["owner"], values["id"])
    assert row is not None
    return row


def begin_upload(connection: Connection, owner: str, file_id: str, most_bytes: int = 0) -> None:
    """Note a file, which may have so many bytes, before the first is kept, so that it is removed if its worker is killed."""
    values = {"id": file_id, "owner": owner, "kind": UPLOADING, "filename": "", "purpose": "", "bytes": most_bytes}
    now = now_in(connection)
    connection.execute(sa.insert(files).values(**values, created_at=now, expires_at=now + UPLOAD_LOST_S))


def renew_upload(connection: Connection, file_id: str) -> bool:
    """Say that an upload goes on; whether it was not given up meanwhile."""
    renewal = sa.update(files).where(_is_uploading(file_id))
    return connection.execute(renewal.values(expires_at=now_in(connection) + UPLOAD_LOST_S)).rowcount == 1


def end_upload(connection: Connection, owner: str, file_id: str, life_s: float, **columns: Any) -> RowMapping | None:
    """Make an upload that is whole a file, which lives so long; returns its row, None if it was given up meanwhile."""
    now = now_in(connection)
    values = {"kind": STORED, "created_at": now, "expires_at": now + life_s} | columns
    if connection.execute(sa.update(files).where(_is_uploading(file_id)).values(**values)).rowcount != 1:
        return None
    return find(connection, owner, file_id)


def _is_uploading(file_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(files.c.id == file_id, files.c.kind == UPLOADING)


def find(connection: Connection, owner: str, file_id: str) -> RowMapping | None:
    """An owner's file that has not expired; None for another's too, so that nobody learns which there are."""
    asked = sa.select(files).where(files.c.id == file_id, files.c.owner == owner, _is_alive(connection))
    return connection.execute(asked).mappings().first()


def listed(connection: Connection, owner: str, page: Page, purpose: str | None = None) -> list[RowMapping]:
    """An owner's files; one more than the page holds, if there are more."""
    asked = sa.select(files).where(files.c.owner == owner, _is_alive(connection))
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
    """What an owner's stored files take, and may take once those are whole that are being uploaded, bytes."""
    asked = sa.select(sa.func.coalesce(sa.func.sum(files.c.bytes), 0))
    counted = sa.and_(files.c.owner == owner, files.c.kind.in_((STORED, UPLOADING)))
    return int(connection.execute(asked.where(counted)).scalar_one())


def hide(connection: Connection, row: RowMapping) -> bool:
    """Let nobody have a file any more, whose content is then removed; False for an upload that goes on after all."""
    given_up = sa.or_(files.c.kind != UPLOADING, files.c.expires_at <= now_in(connection))
    hiding = sa.update(files).where(files.c.id == row["id"], files.c.kind == row["kind"], given_up)
    kind = REMOVED if row["kind"] in WITH_CONTENT else row["kind"]  # which says which lines are its content
    return connection.execute(hiding.values(kind=kind, expires_at=0.0)).rowcount == 1


def remove(connection: Connection, file_id: str) -> None:
    """Forget a file's row."""
    connection.execute(sa.delete(files).where(files.c.id == file_id))


def ended(connection: Connection, limit: int = 100) -> list[RowMapping]:
    """Files whose life time is over, and what was left of those that somebody began to upload or to remove."""
    asked = sa.select(files).where(files.c.expires_at <= now_in(connection)).limit(limit)
    return list(connection.execute(asked).mappings())


def _is_alive(connection: Connection) -> sa.ColumnElement[bool]:
    in_time = sa.or_(files.c.expires_at.is_(None), files.c.expires_at > now_in(connection))
    return sa.and_(in_time, files.c.kind.not_in((UPLOADING, REMOVED)))
