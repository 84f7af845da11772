"""The accounts in a backup: as they were at one moment, while a real ledger writes, and back without a request more or less."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from host.backup import accounts, archive, restore, save, volumes
from host.errors import Refusal
from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts
from lingbi.accounts.tables import usage_hours
from lingbi.batch import files as rows
from lingbi.batch.store import store_of
from lingbi.settings import Settings
from tests.conftest import ROOT
from tests.server.accounts.ledger.parts import Request, ledger_in

LARGE_BYTES = 256 << 20


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
    for name, file in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return folder


def copies(folder: Path, beside: Path) -> dict:
    beside.mkdir()
    return accounts.copies(folder, beside)


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
        for number in range(8):
            before = ended[0]
            found.append((before, copies(live, tmp_path / f"copies {number}"), ended[0] + len(threads)))
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

    def copied(folder: Path, beside: Path) -> dict:
        made.append(folder)
        journal.unlink(missing_ok=True)
        return {"accounts.db": len(made)}

    monkeypatch.setattr(accounts, "database_in", copied)
    assert copies(tmp_path, tmp_path / "beside") == {"accounts.db": 2} and len(made) == 2


def test_journals_that_never_rest_are_told(tmp_path, monkeypatch):
    (tmp_path / "journals").mkdir()
    numbers = iter(range(100))

    def replaced(folder: Path, beside: Path) -> dict:
        for name in accounts.journals(folder):
            (folder / name).unlink()
        (folder / f"journals/{next(numbers)}.jsonl").touch()
        return {}

    replaced(tmp_path, tmp_path)
    monkeypatch.setattr(accounts, "database_in", replaced)
    monkeypatch.setattr(accounts, "TRIES", 2)
    with pytest.raises(accounts.Unsteady, match="changed with every try"):
        copies(tmp_path, tmp_path / "beside")


def saved(state_dir: Path, file: Path, with_uploads: bool = True) -> dict:
    """{name: item} of an archive with the accounts of a state folder."""
    with archive.written(file) as writer:
        save.save_accounts(writer, state_dir, with_uploads)
    return {item.name: item for item in archive.read(file)[1]}


def test_there_may_be_no_accounts(tmp_path):
    (tmp_path / "accounts").mkdir()
    assert copies(tmp_path / "accounts", tmp_path / "beside") == {}
    assert saved(tmp_path, tmp_path / "b.tar") == saved(tmp_path / "nowhere", tmp_path / "c.tar") == {}


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path):
    (tmp_path / "accounts").mkdir()
    (tmp_path / "accounts/accounts.db").write_text("none\n" * 1000)
    with pytest.raises(Refusal, match="accounts in .* cannot be copied: file is not a database"):
        saved(tmp_path, tmp_path / "b.tar")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["accounts", "accounts.db"]


def test_what_sqlite_keeps_beside_a_database_goes_when_it_is_replaced(tmp_path):
    """The log of another database would be mixed into it."""
    database_of(tmp_path / "old/accounts").engine.dispose()
    item = saved(tmp_path / "old", tmp_path / "b.tar")["state/accounts/accounts.db"]
    state = tmp_path / "state/accounts"
    state.mkdir(parents=True)
    (state / "accounts.db-wal").write_bytes(os.urandom(5000))
    restore.write(state / "accounts.db", item)
    assert [file.name for file in state.iterdir()] == ["accounts.db"]
    assert database_of(state).revision()


def test_in_a_container_the_program_runs_from_its_text(tmp_path):
    """As the shell there runs it; then it goes into another volume, beside what a server left there."""
    first, second = tmp_path / "first", tmp_path / "second"
    ((uploaded, content),) = upload(first, b"lines\n").items()
    (first / "accounts/host").write_text("gpu1.0a1b2c3d\n")
    program = Path(accounts.__file__).read_text()
    shell = ["sh", "-c", volumes.SAVE_ACCOUNTS, "sh", str(first), program]
    done = subprocess.run(shell, capture_output=True, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:") as tar:
        names = ("accounts/accounts.db", "accounts/host", f"files/{uploaded}")
        assert {entry.name: entry.mode for entry in tar} == dict.fromkeys(names, 0o600)
    (second / "accounts").mkdir(parents=True)
    (second / "accounts/accounts.db-wal").write_bytes(os.urandom(5000))
    back = ["sh", "-c", volumes.RESTORE_DATABASE, "sh", str(second)]
    subprocess.run(back, input=done.stdout, check=True)
    assert sorted(file.name for file in (second / "accounts").iterdir()) == ["accounts.db", "host"]
    assert database_of(second / "accounts").revision() and (second / "files" / uploaded).read_bytes() == content
    less = ["sh", "-c", f"{volumes.SAVE_ACCOUNTS} {accounts.WITHOUT_UPLOADS}", "sh", str(first), program]
    done = subprocess.run(less, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"})
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:") as tar:
        assert tar.getnames() == ["accounts/accounts.db", "accounts/host"]


def test_a_database_elsewhere_is_told_without_its_password(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("LINGBI_DATABASE_URL=postgresql://lingbi@10.0.0.5/lingbi\n")
    monkeypatch.setattr(save, "ROOT", tmp_path)
    assert save.elsewhere("LINGBI_DATABASE_URL") == "postgresql://lingbi@10.0.0.5/lingbi"
    assert save.without_password("postgresql://me:word@db/x") == "postgresql://me:***@db/x"


def upload(state_dir: Path, *contents: bytes) -> dict:
    """Files that a server keeps in a state folder, by their ids: {id: bytes}."""
    store = store_of(Settings(state_dir=state_dir), database_of(state_dir / "accounts"))
    kept = {}
    for content in contents:
        with store.database.begin() as connection:
            row = rows.add(connection, owner="one", filename="x", purpose="batch", bytes=len(content))
        writer = store.storage.begin(row["id"])
        writer.write(content)
        writer.finish()
        kept[row["id"]] = content
    store.database.engine.dispose()
    return kept


def test_uploaded_files_are_those_that_the_saved_database_knows(tmp_path):
    """One that is half written, one that came after the copy, and one that was deleted meanwhile are none of them."""
    kept = upload(tmp_path / "live", b"first\n" * 1000, b"")
    gone = next(iter(upload(tmp_path / "live", b"gone")))
    folder = tmp_path / "live/files"
    (folder / gone).unlink()
    for name in ("file-half.part", "file-later"):
        (folder / name).write_text("not yet")
    found = saved(tmp_path / "live", tmp_path / "b.tar")
    held = {name: item.data for name, item in found.items() if archive.UPLOADED.fullmatch(name)}
    assert held == {f"state/files/{name}": content for name, content in kept.items()}
    without = saved(tmp_path / "live", tmp_path / "c.tar", with_uploads=False)
    assert set(without) == set(found) - set(held)
    for name, item in found.items():
        restore.write(tmp_path / "again" / name.split("/", 1)[1], item)
    store = store_of(Settings(state_dir=tmp_path / "again"), database_of(tmp_path / "again/accounts"))
    for name, content in kept.items():
        with store.storage.open(name) as file:
            assert file.read() == content


def test_large_uploads_pass_through_little_memory(tmp_path):
    """Sparse files: the tar that the container's program writes, an archive's writing, its check and the way back."""
    names = upload(tmp_path / "live", b"a", b"b")
    for name in names:
        os.truncate(tmp_path / "live/files" / name, LARGE_BYTES)
    program = f"""
from pathlib import Path
from host.backup import accounts, archive, restore, save
class Nowhere:
    def write(self, data): return len(data)
    def flush(self): pass
accounts.pack(Path({str(tmp_path / "live/accounts")!r}), True, Nowhere())
with archive.written(Path({str(tmp_path / "b.tar")!r})) as writer:
    save.save_accounts(writer, Path({str(tmp_path / "live")!r}), True)
_, items = archive.read(Path({str(tmp_path / "b.tar")!r}))
large = next(item for item in items if item.size == {LARGE_BYTES})
assert restore.has_bytes(Path({str(tmp_path / "live/files")!r}, large.name.split("/")[-1]), large)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # getrusage tells the parent's, too
print(len(items), int(peak.split()[1]) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    count, peak_mib = map(int, done.stdout.split())
    assert count == 3 and peak_mib < 100, done.stdout
