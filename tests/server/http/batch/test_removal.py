"""What has ended is removed, whatever the disk or the database does to one file of it."""

import threading

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import files
from lingbi.batch.owned import take_away
from lingbi.http.batch.removal import Removal
from tests.server.http.batch.test_runner import demo_line, kept, run, shown, submitted


def remove(removal: Removal) -> None:
    removal.go_on()
    removal.under_way.result(60)


@pytest.mark.parametrize("fault", [DatabaseAway("canceling statement due to statement timeout"), OSError(5, "broken")])
def test_a_file_that_cannot_be_removed_is_logged_once_and_holds_no_other_up(store, monkeypatch, caplog, fault):
    ids = [kept(store, b"x") for _ in range(3)]
    with store.database.begin() as connection:
        connection.execute(sa.update(files.files).values(expires_at=1.0))
        bad = files.ended(connection)[0]["id"]
    removal, real = Removal(store), store.storage.remove

    def fails(file_id: str) -> None:
        if file_id == bad:
            raise fault
        real(file_id)

    with monkeypatch.context() as patched:
        patched.setattr(store.storage, "remove", fails)
        for _ in range(3):
            remove(removal)
    assert {path.name for path in store.storage.path.iterdir()} == {bad} < set(ids)
    assert [record.message.split()[3] for record in caplog.records if record.levelname != "INFO"] == [bad], caplog.text
    remove(removal)
    assert list(store.storage.path.iterdir()) == []


def test_a_worker_that_ends_begins_with_no_further_file(store, monkeypatch):
    for _ in range(3):
        kept(store, b"x")
    with store.database.begin() as connection:
        connection.execute(sa.update(files.files).values(expires_at=1.0))
    removal, real, removed = Removal(store), store.storage.remove, []

    def ends(file_id: str) -> None:
        removal.is_ending = True
        removed.append(file_id)
        real(file_id)

    monkeypatch.setattr(store.storage, "remove", ends)
    remove(removal)
    assert len(removed) == 1 and len(list(store.storage.path.iterdir())) == 2


def test_what_was_taken_away_is_removed_while_others_go_on(service, store):
    gone, file_id = submitted(store, demo_line("a")), kept(store, b"x")
    with store.database.begin() as connection:
        taken = take_away(connection, ["one"])
    assert (taken.files, taken.batches) == (1, 1) and file_id in {path.name for path in store.storage.path.iterdir()}
    batch = run(service, store, submitted(store, demo_line("b")))
    assert batch["status"] == "completed" and shown(store, gone) is None
    assert {path.name for path in store.storage.path.iterdir()} == {"file-1"}


@pytest.mark.parametrize("is_slow", [True, False], ids=["slow", "refused"])
def test_a_file_that_the_database_does_not_give_up_holds_no_line_up(service, store, monkeypatch, is_slow):
    file_id, is_over = kept(store, b"x"), threading.Event()
    with store.database.begin() as connection:
        connection.execute(sa.update(files.files).where(files.files.c.id == file_id).values(expires_at=1.0))

    def fails(file_id: str) -> None:
        if is_slow:
            is_over.wait(60)
        raise DatabaseAway("canceling statement due to statement timeout")

    monkeypatch.setattr(store.storage, "remove", fails)
    try:
        assert run(service, store, submitted(store, demo_line("a")), timeout_s=20)["status"] == "completed"
    finally:
        is_over.set()
