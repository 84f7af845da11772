"""Uploads have a row as long as they have content: what is cut off is removed by any worker, and what goes on is not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from lingbi.batch import batches, files
from lingbi.batch.files import UPLOAD_LOST_S
from lingbi.batch.store import store_of
from lingbi.batch.tables import file_parts
from lingbi.batch.uploads import GivenUp, Incoming, remove
from lingbi.settings import Settings
from tests.server.batch.test_claims import claim, finish, make, output, sign_on

COLUMNS = {"filename": "x", "purpose": "batch", "bytes": 5, "life_s": 9e9}


@pytest.fixture
def store(database, tmp_path):
    """With SQLite and a folder, and with PostgreSQL alone."""
    return store_of(Settings(state_dir=tmp_path), database)


def age(store, seconds: float) -> None:
    """Let so many seconds pass for the rows, whatever the database's clock."""
    with store.database.begin() as connection:
        connection.execute(sa.update(files.files).values(expires_at=files.files.c.expires_at - seconds))


@pytest.fixture
def pass_time(monkeypatch, store):
    """Let so many seconds pass, by the worker's clock and for the rows."""
    real, passed = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + passed[0])

    def let_pass(seconds: float) -> None:
        passed[0] += seconds
        age(store, seconds)

    return let_pass


def begun(store, file_id: str = "file-1", content: bytes = b"x" * (1 << 20)) -> Incoming:
    incoming = Incoming(store, "one", file_id)
    incoming.begin()
    incoming.write(content)
    return incoming


def ended(store) -> list:
    with store.database.read() as connection:
        return files.ended(connection)


def kept(store) -> set:
    """The names of all contents, and of the rows that belong to some."""
    rows = sa.select(files.files.c.id).where(files.files.c.kind.in_(files.WITH_CONTENT))
    asked = rows.union(sa.select(file_parts.c.file_id))
    with store.database.read() as connection:
        names = set(connection.execute(asked).scalars())
    return names | {path.name for path in store.storage.path.iterdir()} if store.database.is_sqlite else names


def sweep(store) -> None:
    for row in ended(store):
        remove(store, row)


def test_results_are_removed_a_few_lines_at_a_time_with_their_file_last(store, monkeypatch):
    monkeypatch.setattr("lingbi.batch.batches.FORGET_ROWS", 2)
    batch_id = make(store.database, count=7)
    sign_on(store.database, "w")
    for line in claim(store.database):
        finish(store.database, "w", line, 400 if line.line % 3 == 0 else 200)
    with store.database.begin() as connection:
        batches.end(connection, batches.find(connection, None, batch_id), "completed", 60)
    with store.database.read() as connection:
        rows = {row["kind"]: row for row in files.listed(connection, "one", files.Page())}
    left = []

    def note(connection, cursor, statement, parameters, context, is_many):
        if statement.startswith("DELETE FROM batch_lines"):
            left.append(cursor.rowcount)
            with store.database.read() as other:
                assert files.find(other, "one", rows["output"]["id"]) is None, "it has lost lines, and is offered"

    sa.event.listen(store.database.engine, "after_cursor_execute", note)
    remove(store, rows["output"])
    assert left == [2, 2, 1] and output(store.database, batch_id) == []
    assert [line["custom_id"] for line in output(store.database, batch_id, "errors")] == ["id-3", "id-6"]
    assert ended(store) == []


def test_an_upload_that_stands_still_is_removed_and_told_so_when_it_goes_on(store, pass_time):
    incoming = begun(store)
    pass_time(UPLOAD_LOST_S - 5)
    sweep(store)
    assert kept(store)
    pass_time(10)
    sweep(store)
    assert kept(store) == set()
    with pytest.raises(GivenUp):
        incoming.write(b"more")
    incoming.discard()
    assert kept(store) == set()


def test_an_upload_that_goes_on_stays_however_long_it_takes(store, pass_time):
    incoming = begun(store)
    for _ in range(4):
        pass_time(UPLOAD_LOST_S - 5)
        sweep(store)
        incoming.write(b"more")
    incoming.finish()
    with store.database.begin() as connection:
        row = incoming.keep(connection, **COLUMNS)
    assert ended(store) == [] and row["kind"] == files.STORED
    with store.storage.open("file-1") as file:
        assert file.read() == b"x" * (1 << 20) + b"more" * 4


def test_an_upload_is_no_file_until_it_is_whole(store):
    begun(store)
    with store.database.read() as connection:
        assert files.find(connection, "one", "file-1") is None
        assert files.listed(connection, "one", files.Page()) == []


def test_uploads_that_begin_at_the_same_time_share_the_room_of_their_key(store):
    """Whichever way their workers come in between each other: what all may have together is what there is."""
    mib = 1 << 20
    tight = replace(store, rules=replace(store.rules, owner_bytes=5 * mib, file_bytes=2 * mib))
    starts = threading.Barrier(8)

    def begin(number: int) -> int:
        starts.wait()
        return Incoming(tight, "one", f"file-{number}").begin(3 * mib if number % 2 else None).most_bytes

    with ThreadPoolExecutor(8) as threads:
        rooms = sorted(threads.map(begin, range(8)))
    assert rooms == [0] * 5 + [mib, 2 * mib, 2 * mib]
    assert Incoming(tight, "other", "file-9").begin(7).most_bytes == 7, "no more than comes is kept for it"
    with store.database.read() as connection:
        assert (files.held_bytes(connection, "one"), files.held_bytes(connection, "other")) == (5 * mib, 7)


def test_an_upload_that_goes_on_after_all_is_not_removed(store, pass_time):
    """A worker finds it ended; before it removes it, another one hears of it again."""
    begun(store)
    pass_time(UPLOAD_LOST_S + 5)
    (row,) = ended(store)
    with store.database.begin() as connection:
        assert files.renew_upload(connection, "file-1")
    before = kept(store)
    remove(store, row)
    assert kept(store) == before


def test_two_workers_may_remove_the_same(store, pass_time):
    begun(store)
    pass_time(UPLOAD_LOST_S + 5)
    (row,), others = ended(store), begun(store, "file-2")
    for _ in range(2):
        remove(store, row)
    assert {name.split(".")[0] for name in kept(store)} == {"file-2"}
    others.discard()
    assert kept(store) == set()


def test_a_removal_that_is_cut_off_is_gone_on_with(store, monkeypatch):
    incoming = begun(store)
    incoming.finish()
    with store.database.begin() as connection:
        row = incoming.keep(connection, **COLUMNS)

    class Killed(BaseException):
        pass

    def killed(file_id: str) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(store.storage, "remove", killed)
        remove(store, row)
    with store.database.read() as connection:
        assert files.find(connection, "one", "file-1") is None
    sweep(store)
    assert kept(store) == set()
