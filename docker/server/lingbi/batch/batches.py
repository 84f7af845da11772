"""The rows of batches: made, shown, cancelled, and taken from one status to the next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from lingbi.accounts.database import now_in
from lingbi.batch import files as file_rows
from lingbi.batch.files import Page, new_id, paged
from lingbi.batch.lines import Fault, Line, errors_of
from lingbi.batch.states import ENDED, OPEN
from lingbi.batch.tables import DONE, WAITS, batch_lines, batches

PREFIX = "batch_"
FORGET_ROWS = 1000  # in one transaction, which must end soon
READER_LOST_S = 30.0  # a worker that reads an input file says so more often than this


def create(connection: Connection, owner: str, window_s: int, **columns: Any) -> RowMapping:
    """Make a batch, whose input is read by a worker in the background; returns its row."""
    now = now_in(connection)
    values = {"id": new_id(PREFIX), "owner": owner, "status": "validating", "created_at": now}
    connection.execute(sa.insert(batches).values(**values, expires_at=now + window_s, **columns))
    row = find(connection, owner, str(values["id"]))
    assert row is not None
    return row


def find(connection: Connection, owner: str | None, batch_id: str) -> RowMapping | None:
    """A batch of an owner (None: of anybody)."""
    asked = sa.select(batches).where(batches.c.id == batch_id)
    asked = asked if owner is None else asked.where(batches.c.owner == owner)
    return connection.execute(asked).mappings().first()


def listed(connection: Connection, owner: str | None, page: Page, status: str | None = None) -> list[RowMapping]:
    """An owner's batches (None: everybody's), or those of them in a status; one more than the page holds, if there are more."""
    asked = sa.select(batches)
    asked = asked if owner is None else asked.where(batches.c.owner == owner)
    asked = asked if status is None else asked.where(batches.c.status == status)
    return paged(connection, batches, asked, owner, page)


def open_ones(connection: Connection) -> list[RowMapping]:
    """All batches that have not ended, the oldest first."""
    asked = sa.select(batches).where(batches.c.status.in_(OPEN)).order_by(batches.c.created_at)
    return list(connection.execute(asked).mappings())


def by_status(connection: Connection) -> dict[str, int]:
    """How many batches there are of each status."""
    asked = sa.select(batches.c.status, sa.func.count()).group_by(batches.c.status)
    return dict.fromkeys((*OPEN, *ENDED), 0) | {status: count for status, count in connection.execute(asked)}


def lines_left(open_ones: Iterable[RowMapping]) -> int:
    """Lines of batches in progress that have no result yet."""
    going = [batch for batch in open_ones if batch["status"] == "in_progress"]
    return sum(batch["total"] - batch["completed"] - batch["failed"] for batch in going)


def cancel(connection: Connection, batch_id: str) -> bool:
    """Let no further line begin; whether the batch had not ended yet."""
    return _move(connection, batch_id, ("validating", "in_progress"), "cancelling")


def move(connection: Connection, batch: RowMapping, status: str) -> bool:
    """Take a batch to another status, unless somebody else has taken it from the one it had; whether that was done."""
    return _move(connection, batch["id"], (batch["status"],), status)


def _move(connection: Connection, batch_id: str, before: Iterable[str], status: str) -> bool:
    at = {f"{status}_at": now_in(connection)}
    change = sa.update(batches).where(batches.c.id == batch_id, batches.c.status.in_(before))
    return connection.execute(change.values(status=status, **at)).rowcount == 1


def take_reading(connection: Connection, batch: RowMapping, worker: str, is_alive: bool) -> bool:
    """Have this worker read a batch's input, unless another one that is alive does; what that one noted is dropped."""
    if is_alive:
        return False
    seen = batches.c.worker.is_(None) if batch["worker"] is None else batches.c.worker == batch["worker"]
    change = sa.update(batches).where(batches.c.id == batch["id"], batches.c.status == "validating", seen)
    if connection.execute(change.values(worker=worker)).rowcount != 1:
        return False
    connection.execute(sa.delete(batch_lines).where(batch_lines.c.batch_id == batch["id"]))
    return True


def is_reading(connection: Connection, batch_id: str, worker: str) -> bool:
    """Whether a worker still is to read a batch's input; nobody ends the batch before this transaction ends."""
    change = sa.update(batches).where(_read_by(batch_id, worker))
    return connection.execute(change.values(worker=worker)).rowcount == 1


def _read_by(batch_id: str, worker: str) -> sa.ColumnElement[bool]:
    """The batch, while this worker is to read its input."""
    return sa.and_(batches.c.id == batch_id, batches.c.status == "validating", batches.c.worker == worker)


def add_lines(
    connection: Connection, batch_id: str, lines: Iterable[Line], ended: Mapping[int, str] | None = None
) -> None:
    """Note lines of a batch that is being read. ended: of those that are not asked, {number: line of the errors file}."""
    results = ended or {}
    rows = [
        {
            "batch_id": batch_id,
            "line": line.number,
            "custom_id": line.custom_id,
            "model": line.model,
            "place": line.place,
            "size": line.size,
            "state": DONE if line.number in results else WAITS,
            "result": results.get(line.number),
            "result_bytes": bytes_of(results[line.number]) if line.number in results else None,
        }
        for line in lines
    ]
    if rows:
        connection.execute(sa.insert(batch_lines), rows)


def bytes_of(result: str) -> int:
    """What a result takes in its file, with the end of its line."""
    return len(result.encode()) + 1


def begin(connection: Connection, batch_id: str, worker: str, total: int, failed: int = 0) -> bool:
    """Let the lines of a batch be asked, after this worker has read them all. failed: so many have an error already."""
    change = sa.update(batches).where(_read_by(batch_id, worker))
    values = {"status": "in_progress", "in_progress_at": now_in(connection), "total": total, "failed": failed}
    return connection.execute(change.values(**values)).rowcount == 1


def fail(connection: Connection, batch_id: str, worker: str, faults: Iterable[Fault]) -> None:
    """End a batch whose input is none; its lines are dropped."""
    change = sa.update(batches).where(_read_by(batch_id, worker))
    values = {"status": "failed", "failed_at": now_in(connection), "errors": errors_of(faults)}
    if connection.execute(change.values(**values)).rowcount == 1:
        connection.execute(sa.delete(batch_lines).where(batch_lines.c.batch_id == batch_id))


def note_expiry(connection: Connection, batch_id: str) -> None:
    """Say that lines are ended because their batch has expired: then so does it, though all have a result."""
    connection.execute(sa.update(batches).where(batches.c.id == batch_id).values(expired_at=now_in(connection)))


def end(connection: Connection, batch: RowMapping, status: str, life_s: float) -> bool:
    """End a batch: its results become files, which live for so long. Whether it was this call that ended it."""
    if not move(connection, batch, status):
        return False
    _forget_unasked(connection, batch)
    made = {}
    for kind, column in (("output", "output_file_id"), ("errors", "error_file_id")):
        count, size = _results(connection, batch["id"], kind)
        if count:
            made[column] = file_rows.add(
                connection,
                owner=batch["owner"],
                kind=kind,
                batch_id=batch["id"],
                filename=f"{batch['id']}_{kind}.jsonl",
                purpose="batch_output",
                bytes=size,
                expires_at=now_in(connection) + life_s,
            )["id"]
    if made:
        connection.execute(sa.update(batches).where(batches.c.id == batch["id"]).values(**made))
    return True


def _forget_unasked(connection: Connection, batch: RowMapping) -> None:
    """Drop the lines of a batch that has ended which have no result; all, where it was not even read to its end."""
    columns = batch_lines.c
    unasked = sa.and_(columns.batch_id == batch["id"], columns.state != DONE)
    whole = columns.batch_id == batch["id"]
    connection.execute(sa.delete(batch_lines).where(whole if batch["in_progress_at"] is None else unasked))


def forget_results(connection: Connection, batch_id: str, kind: str, after: int = 0) -> int:
    """Drop up to FORGET_ROWS lines whose results a batch's output, or its errors file, held, behind the line `after`.

    Returns the last of them, 0 if there was none.
    """
    mine = batch_lines.c.batch_id == batch_id
    asked = sa.select(batch_lines.c.line).where(mine, batch_lines.c.state == DONE, is_of(kind))
    some = asked.where(batch_lines.c.line > after).order_by(batch_lines.c.line).limit(FORGET_ROWS)
    lines = connection.execute(some).scalars().all()
    if not lines:
        return 0
    connection.execute(sa.delete(batch_lines).where(mine, batch_lines.c.line.in_(lines)))
    return int(lines[-1])


def is_of(kind: str) -> sa.ColumnElement[bool]:
    """Which lines a batch's output, or its errors file, holds."""
    answered = batch_lines.c.status_code == 200
    return answered if kind == "output" else sa.or_(~answered, batch_lines.c.status_code.is_(None))


def _results(connection: Connection, batch_id: str, kind: str) -> tuple[int, int]:
    """How many results of this kind there are, and their bytes."""
    asked = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(batch_lines.c.result_bytes), 0))
    found = connection.execute(
        asked.where(batch_lines.c.batch_id == batch_id, batch_lines.c.state == DONE, is_of(kind))
    )
    count, size = found.one()
    return int(count), int(size)


def metadata_of(given: dict[str, str] | None) -> str | None:
    """A batch's metadata as it is kept."""
    return json.dumps(given, ensure_ascii=False) if given else None
