"""A model folder that lingbi fetched: the model's files, and beside them in .lingbi/ how they came.

.lingbi/lock.json      which bytes the folder holds (lockfile.py)
.lingbi/marker.json    sizes and times as they were when all was proven (marker.py)
.lingbi/used           its time is the last use
.lingbi/mutex          held by whoever changes the folder (mutex.py)
.lingbi/partial/       files on their way, by SHA-256
.lingbi/verified/      files that are proven and wait for the others
"""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from lingbi.errors import ConfigurationError
from lingbi.model.resolve import is_present
from lingbi.weights import lockfile
from lingbi.weights.lockfile import OWN_FOLDER, Entry, Lock
from lingbi.weights.progress import Progress

RETRY_S = 0.5


class WeightsFolder:
    """Paths and moves of one fetched model folder; decides nothing."""

    def __init__(self, path: Path):
        self.path = path
        self.own = path / OWN_FOLDER
        self.lock_file = self.own / "lock.json"
        self.previous_file = self.own / "previous.json"
        self.marker_file = self.own / "marker.json"
        self.used_file = self.own / "used"
        self.partial = self.own / "partial"
        self.verified = self.own / "verified"

    def prepare(self) -> None:
        """Make the folder ready to be fetched into. Raises ConfigurationError where that is not allowed."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise ConfigurationError(
                f"{self.path} is a link or a file: shared weights are used in place and never written to; "
                "give another folder in --to, or fetch where the link points"
            )
        # in this order: a fetch beside this one makes .lingbi/ before it places anything
        is_strange = self._holds_files() and not self.own.exists()
        if is_strange and not self._holds_a_model():
            raise ConfigurationError(f"{self.path} holds other files than a model's; give a new folder in --to")
        try:
            for folder in (self.partial, self.verified):
                folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.own).close()  # of its own: others prepare the same folder now
        except OSError as error:
            owner = next(parent for parent in (self.path, *self.path.parents) if parent.exists())
            raise ConfigurationError(
                f"{self.path} cannot be written: {error.strerror} ({owner} belongs to user {owner.stat().st_uid}, "
                f"this is user {os.geteuid()}); let this user write there, or give another folder"
            ) from None

    def _holds_files(self) -> bool:
        return self.path.is_dir() and any(entry != self.own for entry in self.path.iterdir())

    def _holds_a_model(self) -> bool:
        return (self.path / "config.json").exists()

    def lock(self) -> Lock | None:
        """What the folder holds, or None where no fetch has been completed."""
        return lockfile.read(self.lock_file) if self.lock_file.exists() else None

    def place(self, lock: Lock, old: Lock | None) -> bool:
        """Move proven files to their places and remove those that only an older lock had.

        Returns whether any was moved. A kill in between leaves a folder without a marker, whose
        check says what is missing, and the older lock's name list for the next call.
        """
        self.marker_file.unlink(missing_ok=True)
        if old and old != lock and not self.previous_file.exists():
            old.write(self.previous_file)
        lock.write(self.lock_file)
        proven = [entry for entry in sorted(lock.entries, key=_config_last) if (self.verified / entry.sha256).exists()]
        last = {entry.sha256: entry for entry in proven}  # of equal files, which verified/ holds once
        for entry in proven:
            self._place(entry, keep=last[entry.sha256] is not entry)
        self._remove_stale(lock)
        shutil.rmtree(self.verified)
        shutil.rmtree(self.partial)
        return bool(proven)

    def _remove_stale(self, lock: Lock) -> None:
        if self.previous_file.exists():
            kept = {entry.path for entry in lock.entries}
            for entry in lockfile.read(self.previous_file).entries:
                if entry.path not in kept:
                    (self.path / entry.path).unlink(missing_ok=True)
            self.previous_file.unlink()

    def _place(self, entry: Entry, keep: bool) -> None:
        target = self.path / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if keep:
            shutil.copyfile(self.verified / entry.sha256, target)
        else:
            os.replace(self.verified / entry.sha256, target)

    def touch_used(self) -> None:
        """Remember that the model was used now, where this user may."""
        if os.access(self.own, os.W_OK):
            self.used_file.touch()


def _config_last(entry: Entry) -> tuple:
    """config.json makes a folder count as a model's: it comes when the rest is there."""
    return entry.path == "config.json", entry.path


@contextlib.contextmanager
def held(folder: WeightsFolder, progress: Progress):
    """Hold the folder's lock; waits as long as another process does, and says for whom.

    The kernel (or the NFS server) drops the lock when its holder dies.
    """
    lock = FileLock(folder.own / "mutex")
    holder = folder.own / "holder"
    while not _acquired(lock):
        progress.begin(f"waiting for {_who(holder)}, who is at work on {folder.path}", 0)
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=RETRY_S)
    except Timeout:
        return False
    return True


def _who(holder) -> str:
    try:
        return holder.read_text()
    except OSError:  # it has the lock and not yet said who it is
        return "another process"


def remove(path: Path) -> int:
    """Remove a model folder, or the link to one; returns the bytes made free.

    Raises ConfigurationError for anything that is not a model's folder, and while it is fetched.
    """
    if path.is_symlink():
        path.unlink()
        return 0
    folder = WeightsFolder(path)
    if not is_present(path) and not folder.own.is_dir():
        raise ConfigurationError(f"{path} is no model folder; scripts/weights list shows those that are here")
    size = size_on_disk(path)
    if folder.own.is_dir():
        with held(folder, Progress()):
            shutil.rmtree(path)
    else:
        shutil.rmtree(path)
    return size


def size_on_disk(folder: Path) -> int:
    """Bytes that a folder's files take; a link takes none."""
    if folder.is_symlink():
        return 0
    return sum(_blocks(os.path.join(root, name)) for root, _, names in os.walk(folder) for name in names) * 512


def _blocks(file: str) -> int:
    """Blocks of 512 bytes; none where a fetch at work has just moved the file."""
    try:
        return os.lstat(file).st_blocks
    except FileNotFoundError:
        return 0
