"""Which worker asks which line: taken in small numbers, answered once, and given back by workers that are gone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from lingbi.accounts.database import Database, now_in
from lingbi.batch.batches import bytes_of, is_of
from lingbi.batch.files import new_id
from lingbi.batch.tables import DONE, RUNS, WAITS, batch_lines, batch_workers, batches

LOST_S = 30.0  # after so long without a sign, a worker is taken for dead
REMEMBERED_S = 86400.0  # for so long after its last sign, a worker's model is one that may come back
READ_ROWS = 500


@dataclass(frozen=True)
class Claimed:
    """A line that this worker is to ask."""

    batch_id: str
    line: int
    custom_id: str
    place: int
    size: int
    owner: str
    endpoint: str
    input_file_id: str


@dataclass(frozen=True)
class Result:
    """What became of a line: its line in the output or errors file, and its HTTP status (None: it was not asked)."""

    status_code: int | None
    text: str


def answered(claimed: Claimed, request_id: str, status_code: int, body: Any) -> Result:
    """The result of a line that was asked."""
    response = {"status_code": status_code, "request_id": request_id, "body": body}
    return Result(status_code, _told(claimed.custom_id, response, None))


def unasked(custom_id: str, code: str, message: str) -> Result:
    """The result of a line that was not asked, with the reason."""
    return Result(None, _told(custom_id, None, {"code": code, "message": message}))


def _told(custom_id: str, response: Any, error: Any) -> str:
    told = {"id": new_id("batch_req_"), "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(told, ensure_ascii=False)


def sign_on(connection: Connection, database: Database, worker: str, model: str) -> None:
    """Say that this worker is alive, and for which model it takes lines."""
    row = {"worker": worker, "model": model, "seen_at": now_in(connection)}
    adding = database.insert(batch_workers).values(**row)
    connection.execute(adding.on_conflict_do_update(index_elements=["worker"], set_=row))


def sign_off(connection: Connection, worker: str) -> None:
    """Give back what a worker runs, and have it taken for dead."""
    gone = sa.update(batch_workers).where(batch_workers.c.worker == worker)
    connection.execute(gone.values(seen_at=now_in(connection) - LOST_S))
    _free(connection, batch_lines.c.worker == worker)


def alive(connection: Connection) -> set[str]:
    """The workers that were seen a short while ago."""
    return set(connection.execute(sa.select(batch_workers.c.worker).where(_is_alive(connection))).scalars())


def models_seen(connection: Connection) -> set[str]:
    """The models of the workers that are alive, or were within a day, as before a restart."""
    lately = batch_workers.c.seen_at > now_in(connection) - REMEMBERED_S
    return set(connection.execute(sa.select(batch_workers.c.model).where(lately).distinct()).scalars())


def _is_alive(connection: Connection) -> sa.ColumnElement[bool]:
    return batch_workers.c.seen_at > now_in(connection) - LOST_S


def free_lost(connection: Connection) -> int:
    """Let the lines wait again that workers run which are gone; returns how many."""
    forgotten = batch_workers.c.seen_at <= now_in(connection) - REMEMBERED_S
    connection.execute(sa.delete(batch_workers).where(forgotten))
    here = sa.select(batch_workers.c.worker).where(_is_alive(connection))
    return _free(connection, batch_lines.c.worker.not_in(here))


def _free(connection: Connection, whose: sa.ColumnElement[bool]) -> int:
    """Let lines that run wait again. Batches that go on are named, since the index of lines begins with their batch."""
    going = sa.select(batches.c.id).where(batches.c.status.in_(("in_progress", "cancelling")))
    freeing = sa.update(batch_lines).where(batch_lines.c.batch_id.in_(going), batch_lines.c.state == RUNS, whose)
    return connection.execute(freeing.values(state=WAITS, worker=None)).rowcount


def claim(
    connection: Connection, database: Database, worker: str, model: str, count: int, waiting: Collection[str] = ()
) -> list[Claimed]:
    """Take lines of this model: of the owners that run least, of each the oldest batch first; none of `waiting` owners."""
    found: list[Claimed] = []
    for batch in _in_turn(connection):
        if len(found) < count and batch["owner"] not in waiting:
            found += _claim_of(connection, database, batch, worker, model, count - len(found))
    return found


def _in_turn(connection: Connection) -> list[RowMapping]:
    """The batches in progress, those of the owners first that have fewest lines running."""
    running = (
        sa.select(batches.c.owner, sa.func.count().label("running"))
        .join(batch_lines, batch_lines.c.batch_id == batches.c.id)
        .where(batches.c.status == "in_progress", batch_lines.c.state == RUNS)
        .group_by(batches.c.owner)
        .subquery()
    )
    asked = (
        sa.select(batches)
        .outerjoin(running, running.c.owner == batches.c.owner)
        .where(batches.c.status == "in_progress", batches.c.expires_at > now_in(connection))
        .order_by(sa.func.coalesce(running.c.running, 0), batches.c.created_at)
    )
    return list(connection.execute(asked).mappings())


def _claim_of(
    connection: Connection, database: Database, batch: RowMapping, worker: str, model: str, count: int
) -> list[Claimed]:
    columns = batch_lines.c
    asked = (
        sa.select(columns.line, columns.custom_id, columns.place, columns.size)
        .where(columns.batch_id == batch["id"], columns.state == WAITS, columns.model == model)
        .order_by(columns.line)
        .limit(count)
    )
    if not database.is_sqlite:
        asked = asked.with_for_update(skip_locked=True)
    lines = connection.execute(asked).all()
    if not lines:
        return []
    taken = sa.update(batch_lines).where(columns.batch_id == batch["id"], columns.line.in_([row.line for row in lines]))
    connection.execute(taken.values(state=RUNS, worker=worker))
    common = (batch["owner"], batch["endpoint"], batch["input_file_id"])
    return [Claimed(batch["id"], row.line, row.custom_id, row.place, row.size, *common) for row in lines]


def give_back(connection: Connection, worker: str, claimed: Claimed) -> None:
    """Let a line wait again."""
    mine = _running(claimed.batch_id, claimed.line, worker)
    connection.execute(sa.update(batch_lines).where(mine).values(state=WAITS, worker=None))


def finish(connection: Connection, worker: str, claimed: Claimed, result: Result) -> bool:
    """Write a line's result, unless the line was given to another worker meanwhile; whether it was written."""
    values = {"state": DONE, "worker": None, "status_code": result.status_code, "result": result.text}
    ending = sa.update(batch_lines).where(_running(claimed.batch_id, claimed.line, worker))
    if connection.execute(ending.values(**values, result_bytes=bytes_of(result.text))).rowcount != 1:
        return False
    count = batches.c.completed if result.status_code == 200 else batches.c.failed
    connection.execute(sa.update(batches).where(batches.c.id == claimed.batch_id).values({count: count + 1}))
    return True


def _running(batch_id: str, line: int, worker: str) -> sa.ColumnElement[bool]:
    columns = batch_lines.c
    return sa.and_(columns.batch_id == batch_id, columns.line == line, columns.state == RUNS, columns.worker == worker)


def end_waiting(connection: Connection, database: Database, batch_id: str, code: str, message: str) -> int:
    """Give up to READ_ROWS lines that wait a result of their own, that they were not asked; returns how many."""
    columns = batch_lines.c
    waiting = sa.and_(columns.batch_id == batch_id, columns.state == WAITS)
    asked = sa.select(columns.line, columns.custom_id).where(waiting).order_by(columns.line).limit(READ_ROWS)
    lines = connection.execute(asked if database.is_sqlite else asked.with_for_update(skip_locked=True)).all()
    if lines:
        results = {line: unasked(custom_id, code, message).text for line, custom_id in lines}
        ending = sa.update(batch_lines).where(columns.batch_id == batch_id, columns.line == sa.bindparam("which"))
        values = {"state": DONE, "result": sa.bindparam("text"), "result_bytes": sa.bindparam("bytes")}
        rows = [{"which": line, "text": text, "bytes": bytes_of(text)} for line, text in results.items()]
        connection.execute(ending.values(**values), rows)
        counted = sa.update(batches).where(batches.c.id == batch_id)
        connection.execute(counted.values(failed=batches.c.failed + len(lines)))
    return len(lines)


def running(connection: Connection, batch_id: str) -> int:
    """How many lines of a batch are being asked."""
    asked = sa.select(sa.func.count()).where(batch_lines.c.batch_id == batch_id, batch_lines.c.state == RUNS)
    return int(connection.execute(asked).scalar_one())


def any_left(connection: Connection, model: str) -> bool:
    """Whether lines of a model wait or run, in batches that are in progress."""
    columns = batch_lines.c
    for batch in _in_turn(connection):
        left = sa.and_(columns.batch_id == batch["id"], columns.state.in_((WAITS, RUNS)), columns.model == model)
        if connection.execute(sa.select(columns.line).where(left).limit(1)).first():
            return True
    return False


def results(database: Database, batch_id: str, kind: str) -> Iterator[str]:
    """The lines of a batch's output or errors file, in the order of its input, a few at a time."""
    last = 0
    while True:
        asked = (
            sa.select(batch_lines.c.line, batch_lines.c.result)
            .where(batch_lines.c.batch_id == batch_id, batch_lines.c.state == DONE, is_of(kind))
            .where(batch_lines.c.line > last)
            .order_by(batch_lines.c.line)
            .limit(READ_ROWS)
        )
        with database.read() as connection:
            found = connection.execute(asked).all()
        if not found:
            return
        for line, text in found:
            last = line
            yield f"{text}\n"
