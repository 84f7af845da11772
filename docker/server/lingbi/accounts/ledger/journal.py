"""A journal: a file of entries, one a line, that one process appends to and that outlives it.

Its process holds a lock on it (flock) for as long as it appends. Whoever gets the lock of a journal afterwards finishes it:
a line that was cut off goes, and requests that began in it and did not end get their last line. What is counted of it is
the database's to say, by the position up to which it has counted. Its very last lines are in memory alone, since the disk may be
full: they are counted in one transaction, and then the file goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lingbi.accounts.entries import Counts, Entry, read, unfinished, written

log = logging.getLogger(__name__)
ENDING, UNNAMED = ".jsonl", ".new"
LOST = 502  # the status of a request whose worker died: what the gateway told its client
CHUNK = 1 << 20
ONE_REQUEST = Counts(requests=1)
OnBadLine = Callable[[str], None]


class Journal:
    """A journal that this process has the lock of. Raises OSError where the disk refuses."""

    def __init__(self, file: Path, descriptor: int) -> None:
        self.file, self._descriptor = file, descriptor
        self.size = os.fstat(descriptor).st_size  # of whole lines that stay, and of those in memory
        self._in_memory = b""  # the last lines, which the disk does not have
        self.counted = 0  # up to this position, as far as this process knows
        self.running = 0  # requests whose further lines must go into this journal
        self.written_lines = self.counted_lines = 0
        self._synced = 0
        self._closing = threading.Lock()

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self.file.name

    def append(self, lines: bytes) -> None:
        """Put whole lines at the end, or nothing."""
        try:
            if os.write(self._descriptor, lines) != len(lines):
                raise OSError(f"only a part of an entry could be written to {self.file}")
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(lines)
        self.written_lines += lines.count(b"\n")

    def hold(self, lines: bytes) -> None:
        """Put whole lines at the end, in memory: for whoever counts them next and then removes the journal."""
        self._in_memory += lines
        self.size += len(lines)
        self.written_lines += lines.count(b"\n")

    @property
    def _on_disk(self) -> int:
        return self.size - len(self._in_memory)

    def sync(self) -> None:
        """Have the disk keep what was appended, which stays there from now on even if the machine loses its power."""
        with self._closing:
            size = self.size
            if size > self._synced and self._descriptor >= 0:
                os.fdatasync(self._descriptor)
                self._synced = size

    def lines(self, position: int) -> tuple[list[bytes], int]:
        """Whole lines from a position, at most about CHUNK bytes, and the position behind them.

        Those in memory are told together or not at all: behind their beginning a position says that they, or others of an
        earlier process in their place, are counted.
        """
        if self._in_memory and position == self._on_disk:
            return self._in_memory[:-1].split(b"\n"), self.size
        data = os.pread(self._descriptor, max(min(CHUNK, self._on_disk - position), 0), position)
        end = data.rfind(b"\n") + 1
        if not end:  # no line is as long as a chunk: what is there is none
            return [data] if data else [], position + len(data)
        return data[: end - 1].split(b"\n"), position + end

    def close(self) -> None:
        """Give the lock up: whoever gets it next finishes the journal."""
        with self._closing:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def cut(self) -> None:
        """Take a last line away that is not whole."""
        tail = os.pread(self._descriptor, min(CHUNK, self._on_disk), max(self._on_disk - CHUNK, 0))
        self.size -= len(tail) - (tail.rfind(b"\n") + 1)
        os.ftruncate(self._descriptor, self._on_disk)


def begin(folder: Path) -> Journal:
    """A new journal, locked before it has the name by which others find it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{uuid.uuid4().hex}{ENDING}"
    unnamed = file.with_suffix(UNNAMED)
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.replace(file)
    return Journal(file, descriptor)


def begin_in_memory(folder: Path) -> Journal:
    """A journal without a file, for lines that are held: where the disk takes none."""
    return Journal(folder / f"{uuid.uuid4().hex}{ENDING}", os.memfd_create("usage"))


def in_folder(folder: Path) -> list[Path]:
    """All journals of a folder, those of living processes among them."""
    return sorted(folder.glob(f"*{ENDING}"))


@contextlib.contextmanager
def taken_over(file: Path) -> Iterator[Journal | None]:
    """A journal whose process is gone; None where another process has it, or had it and removed it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        yield None
        return
    journal = Journal(file, descriptor)
    try:
        yield journal if _is_free(descriptor) else None
    finally:
        journal.close()


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def entries_of(lines: list[bytes], name: str, on_bad: OnBadLine) -> Iterator[tuple[Entry, Counts]]:
    """The entries of lines, with what was told before each. A line that is none is passed over: it stops no others."""
    for line in lines:
        try:
            yield read(line)
        except ValueError as error:
            on_bad(f"a line of the journal {name} cannot be counted ({error}): {line[:200]!r}")


def finish(journal: Journal) -> None:
    """Give the last lines, in memory, to requests that began and did not end. To do it again changes nothing."""
    journal.cut()

    def entries() -> Iterator[Entry]:
        position = 0
        while position < journal.size:
            lines, position = journal.lines(position)
            yield from (entry for entry, _ in entries_of(lines, journal.name, log.debug))

    for lost in unfinished(entries()):
        journal.hold(written(lost.of(LOST, ONE_REQUEST), lost.counts))
    journal.sync()
