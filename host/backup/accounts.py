"""A copy of a server's accounts that is right although workers go on writing, and the uploaded files that they know of.

This file runs in the server's container too, as it stands, and so imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

DATABASE, JOURNALS = "accounts.db", "journals/*.jsonl"
BESIDE = (f"{DATABASE}-wal", f"{DATABASE}-shm")  # of a database that is replaced: SQLite would mix the two
SMALL = ("host", "keys.json")
WITHOUT_UPLOADS = "--without-uploads"
TRIES, BUSY_S = 20, 10.0


class Unsteady(Exception):
    """Journals were counted and removed at each try."""


@contextlib.contextmanager
def saved(folder: Path, with_uploads: bool) -> Iterator[Iterator[tuple[str, BinaryIO]]]:
    """(name, bytes) of all that, each to be read before the next; names are those in the state folder.

    folder: of the accounts; none is no fault. Raises Unsteady, OSError and sqlite3.Error.
    """
    if not folder.is_dir():
        yield iter(())
        return
    with tempfile.TemporaryDirectory(dir=str(folder), prefix=".backup.") as beside:
        found = copies(folder, Path(beside))
        names = {f"accounts/{name}": file for name, file in sorted(found.items())}
        if with_uploads and DATABASE in found:
            names.update({f"files/{name}": folder.parent / "files" / name for name in uploads(found[DATABASE])})
        yield _opened(names)


def _opened(files: dict[str, Path]) -> Iterator[tuple[str, BinaryIO]]:
    """Those that are there still: a file may be deleted meanwhile."""
    for name, file in files.items():
        with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
            yield name, stream


def copies(folder: Path, beside: Path) -> dict[str, Path]:
    """{name below the folder: its copy, in the folder `beside`}. Raises Unsteady, OSError and sqlite3.Error.

    What is in a journal and not in the database's copy yet is counted after a restore, and nothing twice: the database
    says up to where each journal was counted. So that nothing is in neither, no journal may be removed in between.
    """
    for _ in range(TRIES):
        before = journals(folder)
        found = database_in(folder, beside)
        copied = {name: file for name in journals(folder) if (file := copy_of(folder, name, beside))}
        if set(before) <= set(copied):
            found.update(copied)
            found.update({name: file for name in SMALL if (file := copy_of(folder, name, beside))})
            return found
        time.sleep(0.1)
    raise Unsteady(f"the journals in {folder} changed with every try; try again when there are fewer requests")


def journals(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.glob(JOURNALS))


def copy_of(folder: Path, name: str, beside: Path) -> Path | None:
    """The copy of a file; None where there is none."""
    target = beside / name
    target.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(str(folder / name), str(target))
    except FileNotFoundError:
        return None
    return target


def database_in(folder: Path, beside: Path) -> dict[str, Path]:
    """The database as it was at one moment, by SQLite's online backup; none where it is in PostgreSQL."""
    if not (folder / DATABASE).exists():
        return {}
    target = beside / DATABASE
    with contextlib.ExitStack() as both:
        source = both.enter_context(contextlib.closing(sqlite3.connect(str(folder / DATABASE), timeout=BUSY_S)))
        copy = both.enter_context(contextlib.closing(sqlite3.connect(str(target))))
        source.backup(copy)
    return {DATABASE: target}


def uploads(database: Path) -> list[str]:
    """The names of the uploaded files that a database knows of; what came later, or is not whole, is none of them."""
    with contextlib.closing(sqlite3.connect(str(database))) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'files'").fetchone():
            return []
        found = connection.execute("SELECT id FROM files WHERE kind = 'stored' ORDER BY created_at")
        return [name for (name,) in found if name == os.path.basename(name)]


def pack(folder: Path, with_uploads: bool, stream: BinaryIO) -> None:
    """Write all that as a tar, for the program that has started this one in a container."""
    tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)
    with saved(folder, with_uploads) as found, tar:
        for name, content in found:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = os.fstat(content.fileno()).st_size, 0o600
            tar.addfile(entry, content)


if __name__ == "__main__":
    try:
        pack(Path(sys.argv[1]), WITHOUT_UPLOADS not in sys.argv, sys.stdout.buffer)
    except (Unsteady, OSError, sqlite3.Error) as fault:
        sys.exit(f"the accounts in {sys.argv[1]} cannot be copied: {fault}")
