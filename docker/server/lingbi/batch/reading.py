"""Reads a batch's input file in the background: all its lines become rows, or the batch fails with what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator

from sqlalchemy.engine import RowMapping

from lingbi.accounts.database import Database
from lingbi.batch import batches, claims
from lingbi.batch.lines import Bounds, Fault, Line, judge, split
from lingbi.batch.storage import Storage

CHUNK = 1000  # lines a transaction


def read(
    database: Database, storage: Storage, batch: RowMapping, worker: str, bounds: Bounds, ours: Collection[str] = ()
) -> None:
    """Read the input of a batch that this worker has taken. ours: models of this installation, whose lines wait although
    none of their workers is there, as those of models do that were seen lately. Raises DatabaseAway, OSError."""
    faults: list[Fault] = []
    total = failed = 0
    with database.read() as connection:
        models = sorted(claims.models_seen(connection).union(ours))
    try:
        file = storage.open(batch["input_file_id"])
    except FileNotFoundError:
        faults.append(Fault("file_not_found", f"the input file {batch['input_file_id']} is gone"))
    else:
        with file:
            for lines in _chunks(_good(judge(split(file, bounds.line_bytes), bounds), faults)):
                if faults:
                    continue  # the other faults are told too, and the batch has no lines
                unserved = {line.number: _unserved(line, models) for line in lines if line.model not in models}
                total, failed = total + len(lines), failed + len(unserved)
                with database.begin() as connection:
                    if not batches.is_reading(connection, batch["id"], worker):
                        return  # it was cancelled or has expired meanwhile, or another worker reads it
                    batches.add_lines(connection, batch["id"], lines, unserved)
    with database.begin() as connection:
        if faults:
            batches.fail(connection, batch["id"], worker, faults)
        else:
            batches.begin(connection, batch["id"], worker, total, failed)


def _unserved(line: Line, models: list[str]) -> str:
    """The line in the errors file of a line whose model nobody serves."""
    message = f"the model {line.model[:100]!r} is not served; there are {', '.join(models)}"
    return claims.unasked(line.custom_id, "model_not_found", message).text


def _good(found: Iterable[Line | Fault], faults: list[Fault]) -> Iterator[Line]:
    """The lines that can be asked; the faults are put in the list."""
    for one in found:
        if isinstance(one, Fault):
            faults.append(one)
        else:
            yield one


def _chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while chunk := list(itertools.islice(lines, CHUNK)):
        yield chunk
