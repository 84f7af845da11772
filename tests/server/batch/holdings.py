"""A batch that runs, one that has ended and an upload, as an owner has them."""

from lingbi.batch import batches, claims, files
from lingbi.batch.lines import Line
from lingbi.batch.store import Store
from lingbi.batch.uploads import Incoming

COLUMNS = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
WORKER = "somebody's worker"


def upload(store: Store, owner: str, content: bytes, filename: str = "lines.jsonl") -> str:
    """Keep a file; returns its id."""
    incoming = Incoming(store, owner, files.new_id(files.PREFIX))
    incoming.begin()
    incoming.write(content)
    incoming.finish()
    with store.database.begin() as connection:
        columns = {"filename": filename, "purpose": "batch", "bytes": len(content), "life_s": 9e9}
        return incoming.keep(connection, **columns)["id"]


def submit(store: Store, owner: str, file_id: str, count: int = 2) -> str:
    """A batch whose lines wait; returns its id."""
    lines = [Line(number, f"id-{number}", "demo", number, 1) for number in range(1, count + 1)]
    with store.database.begin() as connection:
        batch = batches.create(connection, owner, 3600, input_file_id=file_id, **COLUMNS)
        assert batches.take_reading(connection, batch, WORKER, is_alive=False)
        batches.add_lines(connection, batch["id"], lines)
        assert batches.begin(connection, batch["id"], WORKER, count)
    return batch["id"]


def claim(store: Store, count: int, waiting: tuple[str, ...] = ()) -> list[claims.Claimed]:
    """Have WORKER run so many lines, none of owners that wait."""
    with store.database.begin() as connection:
        claims.sign_on(connection, store.database, WORKER, "demo")
        return claims.claim(connection, store.database, WORKER, "demo", count, waiting)


def finish(store: Store, claimed: claims.Claimed, answer: str) -> bool:
    """Whether this answer of WORKER was written."""
    with store.database.begin() as connection:
        return claims.finish(connection, WORKER, claimed, claims.answered(claimed, "req", 200, {"answer": answer}))


def answered(store: Store, owner: str, file_id: str, answer: str, waiting: tuple[str, ...] = ()) -> str:
    """A batch of one line that has ended with this answer; returns the id of its output file. waiting: the other owners."""
    batch_id = submit(store, owner, file_id, 1)
    (claimed,) = claim(store, 1, waiting)
    assert claimed.batch_id == batch_id and finish(store, claimed, answer)
    with store.database.begin() as connection:
        assert batches.end(connection, batches.find(connection, owner, batch_id), "completed", life_s=3600)
        return batches.find(connection, owner, batch_id)["output_file_id"]


def of(store: Store, owner: str) -> tuple[list, list]:
    """The ids of an owner's files and batches."""
    with store.database.read() as connection:
        found = files.listed(connection, owner, files.Page()), batches.listed(connection, owner, files.Page())
    return tuple([row["id"] for row in rows] for rows in found)
