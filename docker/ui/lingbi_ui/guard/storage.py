"""The folder of uploads: who has how much in it, and the end of what is old.

A file lies in <folder>/<visitor>/<random>/<name>. How much a visitor has is what lies on the disk, so that it outlives
the process; Gradio puts copies of the examples beside the visitors' folders.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lingbi_ui.guard.visitors import Shares, Visitor

SWEEP_S = 3600.0
LEAST_BYTES = 4096  # what a file takes, however small
MIB = 1 << 20
log = logging.getLogger("uvicorn.error")


class Full(Exception):
    """There is no room for more. word: the sentence that says whose room is meant, status: HTTP's."""

    def __init__(self, word: str, status: int):
        super().__init__(word)
        self.word, self.status = word, status


class Storage:
    """Files of visitors on the disk."""

    def __init__(self, folder: Path, shares: Shares, keep_h: int, min_free_mib: int):
        self.folder, self.shares = folder, shares
        self.keep_s, self.min_free_bytes = keep_h * 3600, min_free_mib * MIB
        self.used: Counter[str] = Counter()  # bytes by visitor's folder
        self.all_used = 0
        self.writing: set[Path] = set()  # folders that are no leftovers

    def folder_of(self, visitor: Visitor) -> Path:
        """Where all of a visitor's files are; the name tells nobody who it is."""
        kind = "login" if visitor.is_login else "address"
        return self.folder / hashlib.sha256(f"{kind} {visitor.name}".encode()).hexdigest()[:32]

    def new_folder(self, visitor: Visitor) -> Path:
        """An empty folder for one file, with a name that cannot be guessed."""
        place = self.folder_of(visitor) / secrets.token_hex(16)
        place.mkdir(parents=True)
        self.writing.add(place)
        return place

    def take(self, visitor: Visitor, size: int) -> None:
        """Count bytes that are about to be written. Raises Full."""
        place = self.folder_of(visitor).name
        if self.used[place] + size > self.shares.of(visitor).files_bytes:
            raise Full("files_many", 429)
        if self.all_used + size > self.shares.all.files_bytes or self._free() - size < self.min_free_bytes:
            raise Full("files_full", 503)
        self.used[place], self.all_used = self.used[place] + size, self.all_used + size

    def give_back(self, visitor: Visitor, place: Path, size: int) -> None:
        """Remove a file's folder that came to nothing."""
        shutil.rmtree(place, ignore_errors=True)
        self.writing.discard(place)
        name = self.folder_of(visitor).name
        self.used[name], self.all_used = max(0, self.used[name] - size), max(0, self.all_used - size)

    def written(self, place: Path) -> None:
        """A file is whole, and stays until it is old."""
        self.writing.discard(place)

    async def watch(self) -> None:
        """Remove what is old, now and hourly; runs until it is cancelled."""
        while True:
            removed = await asyncio.to_thread(self.sweep, time.time())
            if removed:
                log.info("%d files in %s were old or incomplete, and are removed", removed, self.folder)
            await asyncio.sleep(SWEEP_S)

    def sweep(self, now: float) -> int:
        """Remove old files of every kind, and count the others anew; returns how many were removed."""
        old = [file for file, made_at in self._files() if now - made_at > self.keep_s]
        for file in old:
            with _told(file):
                file.unlink(missing_ok=True)
        self._remove_empty(now)
        self._count()
        return len(old)

    def start(self) -> int:
        """Remove what an earlier process left unfinished, and count; returns how many files were removed."""
        unfinished = [file for file, _ in self._files() if file.name.startswith(("tmp", "."))]
        for file in unfinished:
            with _told(file):
                file.unlink(missing_ok=True)
        return len(unfinished) + self.sweep(time.time())

    def _files(self) -> Iterator[tuple[Path, float]]:
        """Every file, and when it came: a copy keeps its original's time, but its folder is new."""
        for name, _, files in os.walk(self.folder):
            place = Path(name)
            for file in files:
                with _told(place / file):
                    made_at = (place / file).lstat().st_mtime
                    is_own = place != self.folder and place.name != "nothing"
                    yield place / file, max(made_at, place.stat().st_mtime if is_own else 0)

    def _remove_empty(self, now: float) -> None:
        for name, _, _ in os.walk(self.folder, topdown=False):
            place = Path(name)
            is_kept = place in (self.folder, self.folder / "nothing") or place in self.writing
            with contextlib.suppress(OSError):  # not empty
                if not is_kept and now - place.stat().st_mtime > SWEEP_S:
                    place.rmdir()

    def _count(self) -> None:
        used: Counter[str] = Counter()
        seen = set()
        for file, _ in self._files():
            with _told(file):
                found = file.lstat()
                if found.st_ino not in seen:  # a picture may have a second name
                    used[file.relative_to(self.folder).parts[0]] += max(found.st_size, LEAST_BYTES)
                seen.add(found.st_ino)
        self.used, self.all_used = used, used.total()

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """A file that cannot be looked at or removed is told in the log, and the next one follows."""
    try:
        with contextlib.suppress(FileNotFoundError):
            yield
    except OSError as error:
        log.error("%s: %s", file, error.strerror)
