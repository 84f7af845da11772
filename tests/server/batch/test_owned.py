"""What an owner has of files and batches: given out whole, taken away whole, also from workers that are at it."""

import itertools
import json
import threading
import tracemalloc

import pytest
import sqlalchemy as sa

from lingbi.accounts.keys.changes import Change, revoke_key, rotate_key
from lingbi.accounts.tables import metadata
from lingbi.accounts.usage.owners import NOBODY
from lingbi.batch import batches, claims, owned
from lingbi.batch.owned import Taken, add_key, clear, clear_some, erase, export
from lingbi.batch.reading import read
from lingbi.batch.storage import PART_BYTES
from lingbi.batch.store import store_of
from lingbi.batch.tables import batch_lines, file_parts, files
from lingbi.batch.uploads import GivenUp, Incoming
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings
from tests.server.batch.holdings import COLUMNS, WORKER, answered, claim, finish, of, submit, upload
from tests.server.batch.test_reading import BOUNDS

UPLOAD = b"x" * (PART_BYTES + 1)


@pytest.fixture
def store(database, tmp_path):
    """With SQLite and a folder, and with PostgreSQL alone; the keys `one` (of Alice) and `other` are in it."""
    made = store_of(Settings(state_dir=tmp_path), database)
    add_key(database, "one", Change({"owner": "Alice"}))
    add_key(database, "other", Change())
    return made


def hold(store, owner: str, answer: str = "it is red") -> tuple[str, str, str]:
    """(upload, results of a batch that has ended, a batch whose two lines wait) of an owner."""
    file_id = upload(store, owner, UPLOAD, f"{owner}.jsonl")
    output = answered(store, owner, file_id, answer, tuple({"one", "other"} - {owner}))
    return file_id, output, submit(store, owner, file_id)


def whole(store) -> str:
    """All that the database holds, as text."""
    with store.database.read() as connection:
        return repr([connection.execute(sa.select(table)).all() for table in metadata.sorted_tables])


def contents(store) -> int:
    """How many contents, or parts of some, there are."""
    with store.database.read() as connection:
        parts = connection.execute(sa.select(sa.func.count()).select_from(file_parts)).scalar_one()
    return parts if not store.database.is_sqlite else len(list(store.storage.path.iterdir()))


def given(store, *whose) -> dict:
    return {name: [dict(row) for row in rows] for name, rows in export(store.database, *whose)}


def test_an_owners_files_batches_and_results_are_given_out(store):
    file_id, output, running = hold(store, "one")
    hold(store, "other", "it is blue")
    found = json.loads(json.dumps(given(store, "Alice")))
    assert {row["id"]: row["filename"] for row in found["files"]}[file_id] == "one.jsonl"
    assert {row["id"] for row in found["files"]} == {file_id, output} and len(found["batches"]) == 2
    assert [row["custom_id"] for row in found["batch_lines"] if row["batch_id"] == running] == ["id-1", "id-2"]
    assert "it is red" in repr(found) and "it is blue" not in repr(found) and found["keys"][0]["name"] == "one"
    with pytest.raises(ConfigurationError, match="nobody has a key"):
        export(store.database, "nobody")


def test_results_are_given_out_a_few_at_a_time(store):
    file_id = upload(store, "one", UPLOAD)
    batch_id = submit(store, "one", file_id, 3000)
    with store.database.begin() as connection:
        connection.execute(sa.update(batch_lines).values(state=2, status_code=200, result="x" * 10_000))
    tracemalloc.start()
    lines = dict(export(store.database, "Alice"))["batch_lines"]
    assert sum(len(row["result"]) for row in lines if row["batch_id"] == batch_id) == 30_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25 << 20, "30 MB of results"


def test_what_is_erased_is_nowhere_any_more_and_others_keep_theirs(store):
    hold(store, "one")
    kept, before = hold(store, "other", "it is blue"), of(store, "other")
    names, taken = erase(store, "Alice")
    assert (names, taken) == (["one"], Taken(files=2, batches=2, results=1))
    assert str(taken) == "files: 2, batches: 2, results: 1"
    left = whole(store)
    assert "it is red" not in left and "one.jsonl" not in left and NOBODY not in left
    assert of(store, "one") == ([], []) and of(store, "other") == before and "it is blue" in left
    with store.storage.open(kept[0]) as file:
        assert file.read() == UPLOAD
    assert contents(store) == (1 if store.database.is_sqlite else 2)


def test_who_has_stored_nothing_is_erased_too(store):
    assert erase(store, None, "one") == (["one"], Taken())


def test_a_line_that_runs_when_it_is_taken_away_is_written_nowhere(store):
    file_id = upload(store, "one", UPLOAD)
    submit(store, "one", file_id, 3)
    first, second = claim(store, 2)
    erase(store, "Alice")
    assert not finish(store, first, "it is red")
    with store.database.begin() as connection:
        claims.give_back(connection, WORKER, second)
    assert claim(store, 5) == [] and "it is red" not in whole(store)


def test_a_batch_that_is_taken_away_but_not_removed_yet_gives_no_line_and_ends_no_more(store):
    batch_id = submit(store, "one", upload(store, "one", UPLOAD), 3)
    (running,) = claim(store, 1)
    with store.database.begin() as connection:
        seen = batches.find(connection, "one", batch_id)  # by a worker that is about to move it on
        owned.take_away(connection, ["one"])
    assert claim(store, 5) == [] and of(store, "one") == ([], [])
    finish(store, running, "it is red")
    with store.database.begin() as connection:
        assert not batches.end(connection, seen, "expired", life_s=60) and batches.open_ones(connection) == []
    clear(store)
    assert "it is red" not in whole(store) and contents(store) == 0


def test_an_input_that_is_being_read_is_given_up(store):
    file_id = upload(store, "one", b'{"custom_id": "a", "method": "POST"}\n')
    with store.database.begin() as connection:
        batch = batches.create(connection, "one", 60, input_file_id=file_id, **COLUMNS)
        assert batches.take_reading(connection, batch, WORKER, is_alive=False)
    erase(store, "Alice")
    read(store.database, store.storage, batch, WORKER, BOUNDS)
    with store.database.read() as connection:
        assert connection.execute(sa.select(batch_lines)).all() == []


def test_an_upload_that_still_comes_is_given_up(store):
    incoming = Incoming(store, "one", "file-1")
    incoming.begin()
    incoming.write(UPLOAD)
    erase(store, "Alice")
    with store.database.begin() as connection, pytest.raises(GivenUp):
        incoming.keep(connection, filename="x", purpose="batch", bytes=1, life_s=9e9)
    incoming.discard()
    assert contents(store) == 0 and of(store, "one") == ([], [])


def test_what_one_could_not_remove_a_worker_does(store, monkeypatch):
    hold(store, "one")

    def refuse(file_id: str) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(store.storage, "remove", refuse)
        erase(store, "Alice")
    assert contents(store) and of(store, "one") == ([], [])
    clear(store)
    assert contents(store) == 0


def test_a_large_batch_goes_a_little_at_a_time(store, monkeypatch):
    monkeypatch.setattr(owned, "AT_ONCE", 10)
    submit(store, "one", "file-1", 25)
    with store.database.begin() as connection:
        owned.take_away(connection, ["one"])
    counts = []
    while clear_some(store.database):
        with store.database.read() as connection:
            counts.append(connection.execute(sa.select(sa.func.count()).select_from(batch_lines)).scalar_one())
    assert counts == [15, 5, 0]


def test_workers_write_results_while_their_batches_are_taken_away(store):
    """No worker fails of it, and nothing is left."""
    file_id = upload(store, "one", UPLOAD)
    for _ in range(5):
        submit(store, "one", file_id, 40)
    faults, has_begun = [], threading.Event()

    def work(worker: str) -> None:
        try:
            for turn in itertools.count():
                with store.database.begin() as connection:
                    claims.sign_on(connection, store.database, worker, "demo")
                    taken = claims.claim(connection, store.database, worker, "demo", 3)
                if not taken:
                    return
                for one in taken:
                    with store.database.begin() as connection:
                        claims.finish(connection, worker, one, claims.answered(one, "r", 200, {"answer": "it is red"}))
                if turn == 2:
                    has_begun.set()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    assert has_begun.wait(30)
    _, taken = erase(store, "Alice")
    for thread in threads:
        thread.join()
    assert faults == [] and taken.batches == 5 and "it is red" not in whole(store)


def test_who_gets_a_revoked_name_gets_none_of_its_files(store):
    file_id, output, running = hold(store, "one")
    revoke_key(store.database, "one")
    assert of(store, "one")[0], "they stay while the key is only revoked"
    _, taken = add_key(store.database, "one", Change())
    assert taken == Taken(files=2, batches=2, results=1) and of(store, "one") == ([], [])
    with store.database.read() as connection:
        assert batches.find(connection, "one", running) is None
        shown = connection.execute(sa.select(files.c.kind).where(files.c.id.in_([file_id, output]))).scalars().all()
    assert shown == ["removed"] * 2
    upload(store, "one", b"the new one's")
    clear(store)
    assert len(of(store, "one")[0]) == 1 and "it is red" not in whole(store)


def test_a_rotated_key_keeps_its_files(store):
    hold(store, "one")
    before = of(store, "one")
    rotate_key(store.database, "one", 0)
    clear(store)
    assert of(store, "one") == before


def test_a_name_that_is_new_or_taken_takes_nothing_away(store):
    hold(store, "one")
    assert add_key(store.database, "two", Change())[1] == Taken()
    before = of(store, "one")
    with pytest.raises(ConfigurationError, match="there is a key one already"):
        add_key(store.database, "one", Change())
    assert of(store, "one") == before
