"""A copy of a server's accounts that is right although workers go on writing.

This file runs in the server's container too, as it stands, and so imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import io
import sqlite3
import sys
import tarfile
import tempfile
import time
from pathlib import Path

DATABASE, JOURNALS = "accounts.db", "journals/*.jsonl"
BESIDE = (f"{DATABASE}-wal", f"{DATABASE}-shm")  # of a database that is replaced: SQLite would mix the two
SMALL = ("host", "keys.json")
TRIES, BUSY_S = 20, 10.0


class Unsteady(Exception):
    """Journals were counted and removed at each try."""


def copies(folder: Path) -> dict[str, bytes]:
    """{name below the folder: bytes}; none where there are no accounts. Raises Unsteady, OSError and sqlite3.Error.

    What is in a journal and not in the database's copy yet is counted after a restore, and nothing twice: the database
    says up to where each journal was counted. So that nothing is in neither, no journal may be removed in between.
    """
    for _ in range(TRIES):
        before = journals(folder)
        database = database_in(folder)
        after = {file: data for file in journals(folder) if (data := content(file)) is not None}
        if set(before) <= set(after):
            small = {name: data for name in SMALL if (data := content(folder / name)) is not None}
            return {**database, **{f"journals/{file.name}": data for file, data in after.items()}, **small}
        time.sleep(0.1)
    raise Unsteady(f"the journals in {folder} changed with every try; try again when there are fewer requests")


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(JOURNALS))


def content(file: Path) -> bytes | None:
    """The bytes of a file; None where there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def database_in(folder: Path) -> dict[str, bytes]:
    """The database as it was at one moment, by SQLite's online backup; none where it is in PostgreSQL."""
    if not (folder / DATABASE).exists():
        return {}
    with tempfile.TemporaryDirectory(dir=str(folder), prefix=".backup.") as beside:
        target = Path(beside, DATABASE)
        with contextlib.ExitStack() as both:
            source = both.enter_context(contextlib.closing(sqlite3.connect(str(folder / DATABASE), timeout=BUSY_S)))
            copy = both.enter_context(contextlib.closing(sqlite3.connect(str(target))))
            source.backup(copy)
        return {DATABASE: target.read_bytes()}


def packed(found: dict[str, bytes]) -> bytes:
    """A tar of them, for the program that has started this one in a container."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(found.items()):
            entry = tarfile.TarInfo(f"accounts/{name}")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(packed(copies(Path(sys.argv[1]))))
    except (Unsteady, OSError, sqlite3.Error) as fault:
        sys.exit(f"the accounts in {sys.argv[1]} cannot be copied: {fault}")
