"""What has ended is removed, whatever the disk or the database does to one file of it."""

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import files
from lingbi.http.batch.removal import Removal
from tests.server.http.batch.test_runner import kept


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
