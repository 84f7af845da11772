"""The accounts in a backup: as they were at one moment, while a real ledger writes, and back without a request more or less."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from host.backup import accounts, archive, restore, save, volumes
from host.backup.archive import Item
from host.errors import Refusal
from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts
from lingbi.accounts.tables import usage_hours
from tests.server.accounts.ledger.parts import Request, ledger_in


def database_of(folder: Path) -> Database:
    made = Database(parse_url(f"sqlite:///{folder}/accounts.db"))
    made.bring_up_to_date()
    return made


def counted(folder: Path) -> int:
    """The requests in a folder's database, once what its journals hold is counted."""
    ledger = ledger_in(folder, database_of(folder))
    ledger.count()
    with ledger.database.read() as connection:
        return connection.execute(sa.select(sa.func.coalesce(sa.func.sum(usage_hours.c.requests), 0))).scalar()


def unpacked(found: dict, folder: Path) -> Path:
    for name, data in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_copies_made_under_load_hold_every_request_once(tmp_path, monkeypatch):
    """Journals are small, so that they end, are counted and are removed all the time."""
    monkeypatch.setattr("lingbi.accounts.ledger.spool.JOURNAL_BYTES", 2000)
    monkeypatch.setattr("lingbi.accounts.ledger.ledger.COUNT_S", 0.01)
    ended, stop, live = [0], threading.Event(), tmp_path / "live"
    live.mkdir()
    ledger = ledger_in(live, database_of(live))

    def work() -> None:
        while not stop.wait(0.001):
            use = ledger.spool.open(Request(in_all=Counts(requests=0, prompt_tokens=3)))
            use.end(200)
            ended[0] += 1

    threads = [threading.Thread(target=work) for _ in range(2)]
    ledger.start()
    for thread in threads:
        thread.start()
    try:
        found = []
        for _ in range(8):
            before = ended[0]
            found.append((before, accounts.copies(live), ended[0] + len(threads)))
            stop.wait(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        ledger.stop()
    assert any(name.startswith("journals/") for _, copy, _ in found for name in copy)
    for number, (least, copy, most) in enumerate(found):
        assert least <= counted(unpacked(copy, tmp_path / f"copy {number}")) <= most
    assert counted(live) == ended[0] > 100


def test_a_journal_that_is_removed_meanwhile_has_the_copy_made_again(tmp_path, monkeypatch):
    """It was counted after the database's copy: without it, its requests would be in neither."""
    (tmp_path / "journals").mkdir()
    journal, made = tmp_path / "journals/1.jsonl", []
    journal.write_text("{}\n")

    def copied(folder: Path) -> dict:
        made.append(folder)
        journal.unlink(missing_ok=True)
        return {"accounts.db": b"%d" % len(made)}

    monkeypatch.setattr(accounts, "database_in", copied)
    assert accounts.copies(tmp_path) == {"accounts.db": b"2"} and len(made) == 2


def test_journals_that_never_rest_are_told(tmp_path, monkeypatch):
    (tmp_path / "journals").mkdir()
    numbers = iter(range(100))

    def replaced(folder: Path) -> dict:
        for file in accounts.journals(folder):
            file.unlink()
        (folder / f"journals/{next(numbers)}.jsonl").touch()
        return {}

    replaced(tmp_path)
    monkeypatch.setattr(accounts, "database_in", replaced)
    monkeypatch.setattr(accounts, "TRIES", 2)
    with pytest.raises(accounts.Unsteady, match="changed with every try"):
        accounts.copies(tmp_path)


def test_there_may_be_no_accounts(tmp_path):
    assert accounts.copies(tmp_path / "nowhere") == {}
    assert save.native_accounts(tmp_path) == []


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path):
    (tmp_path / "accounts").mkdir()
    (tmp_path / "accounts/accounts.db").write_text("none\n" * 1000)
    with pytest.raises(Refusal, match="accounts in .* cannot be copied: file is not a database"):
        save.native_accounts(tmp_path)


def test_what_sqlite_keeps_beside_a_database_goes_when_it_is_replaced(tmp_path):
    """The log of another database would be mixed into it."""
    database_of(tmp_path / "old").engine.dispose()
    item = Item("state/accounts/accounts.db", (tmp_path / "old/accounts.db").read_bytes(), 0o600)
    state = tmp_path / "state/accounts"
    state.mkdir(parents=True)
    (state / "accounts.db-wal").write_bytes(os.urandom(5000))
    restore.write(state / "accounts.db", item)
    assert [file.name for file in state.iterdir()] == ["accounts.db"]
    assert database_of(state).revision()


def test_in_a_container_the_program_runs_from_its_text(tmp_path):
    """As the shell there runs it; then it goes into another volume, beside what a server left there."""
    first, second = tmp_path / "first", tmp_path / "second"
    database_of(first / "accounts").engine.dispose()
    (first / "accounts/host").write_text("gpu1.0a1b2c3d\n")
    program = Path(accounts.__file__).read_text()
    shell = ["sh", "-c", volumes.SAVE_ACCOUNTS, "sh", str(first), program]
    done = subprocess.run(shell, capture_output=True, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    items = volumes.unpacked(done.stdout)
    assert {item.name: item.mode for item in items} == {"accounts/accounts.db": 0o600, "accounts/host": 0o600}
    (second / "accounts").mkdir(parents=True)
    (second / "accounts/accounts.db-wal").write_bytes(os.urandom(5000))
    back = ["sh", "-c", volumes.RESTORE_DATABASE, "sh", str(second)]
    subprocess.run(back, input=volumes.packed(items), check=True)
    assert sorted(file.name for file in (second / "accounts").iterdir()) == ["accounts.db", "host"]
    assert database_of(second / "accounts").revision()


def test_a_database_that_is_too_large_is_refused_before_an_archive_is_written(monkeypatch):
    monkeypatch.setattr(archive, "MAX_DATABASE_BYTES", 10)
    with pytest.raises(Refusal, match=r"state/accounts/accounts.db has 0 MiB, .*PostgreSQL \(docs/accounts.md\)"):
        save.check_sizes([Item("state/accounts/accounts.db", b"x" * 11, 0o600)])
    save.check_sizes([Item("volume/state/accounts/accounts.db", b"x" * 10, 0o600)])


def test_a_database_elsewhere_is_told_without_its_password(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("LINGBI_DATABASE_URL=postgresql://lingbi@10.0.0.5/lingbi\n")
    monkeypatch.setattr(save, "ROOT", tmp_path)
    assert save.elsewhere() == "postgresql://lingbi@10.0.0.5/lingbi"
    assert save.without_password("postgresql://me:word@db/x") == "postgresql://me:***@db/x"
