"""A model folder that lingbi fetched: the model's files, and in .lingbi/ beside them what lingbi knows about them.

.lingbi/lock.json      which bytes the folder holds (lockfile.py)
.lingbi/previous.json  the older lock, while an update replaces its files
.lingbi/marker.json    sizes and times at the last full check (verification.py)
.lingbi/used           its modification time is the last use
.lingbi/mutex          locked by the process that is changing the folder
.lingbi/holder         who that is
.lingbi/partial/       files that are still arriving, named by their SHA-256 (arrival.py)
.lingbi/verified/      files that are verified and wait for the others, named by their SHA-256
"""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lingbi.errors import ConfigurationError
from lingbi.model.resolve import is_present
from lingbi.weights import lockfile
from lingbi.weights.lockfile import OWN_FOLDER, Entry, Lock
from lingbi.weights.progress import Progress

MUTEX_RETRY_S = 0.5


class WeightsFolder:
    """Paths and moves of one fetched model folder; it decides nothing."""

    def __init__(self, path: Path):
        self.path = path
        self.own = path / OWN_FOLDER
        self.lock_file = self.own / "lock.json"
        self.previous_file = self.own / "previous.json"
        self.marker_file = self.own / "marker.json"
        self.used_file = self.own / "used"
        self.mutex_file = self.own / "mutex"
        self.holder_file = self.own / "holder"
        self.partial = self.own / "partial"
        self.verified = self.own / "verified"

    def prepare(self) -> None:
        """Make the folder ready for a fetch. Raises ConfigurationError where nothing may be fetched into it."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise ConfigurationError(
                f"{self.path} is a link or a file: shared weights are used in place and never written to; "
                "pass another folder in --to, or run the fetch where the link points"
            )
        # The order matters: a fetch that starts at the same time makes .lingbi/ before it places anything.
        is_strange = self._holds_files() and not self.own.exists()
        if is_strange and not self._holds_a_model():
            raise ConfigurationError(f"{self.path} holds other files than a model's; pass a new folder in --to")
        try:
            for folder in (self.partial, self.verified):
                folder.mkdir(parents=True, exist_ok=True)
            # A file with a name of its own, because other processes may be preparing the same folder.
            tempfile.TemporaryFile(dir=self.own).close()
        except OSError as error:
            owner = next(parent for parent in (self.path, *self.path.parents) if parent.exists())
            raise ConfigurationError(
                f"{self.path} cannot be written: {error.strerror} ({owner} belongs to user {owner.stat().st_uid}, "
                f"this is user {os.geteuid()}); let this user write there, or pass another folder"
            ) from None

    def _holds_files(self) -> bool:
        return self.path.is_dir() and any(entry != self.own for entry in self.path.iterdir())

    def _holds_a_model(self) -> bool:
        return (self.path / "config.json").exists()

    def lock(self) -> Lock | None:
        """What the folder holds, or None if no fetch has completed."""
        return lockfile.read(self.lock_file) if self.lock_file.exists() else None

    def is_verified(self, entry: Entry) -> bool:
        """Whether the file has arrived in verified/ and waits for the others."""
        return (self.verified / entry.sha256).exists()

    def place(self, lock: Lock, old: Lock | None) -> bool:
        """Move verified files into their places and prune those that only the old lock had.

        Returns whether any file was moved. If the process is killed halfway, the folder has no
        marker, so the next check finds what is missing, and previous.json keeps the old lock's names
        for the next call.
        """
        self.marker_file.unlink(missing_ok=True)
        if old and old != lock and not self.previous_file.exists():
            old.write(self.previous_file)
        lock.write(self.lock_file)
        verified = [entry for entry in sorted(lock.entries, key=_config_last) if self.is_verified(entry)]
        last = {entry.sha256: entry for entry in verified}  # verified/ holds equal files only once
        for entry in verified:
            self._place(entry, keep=last[entry.sha256] is not entry)
        self._prune(lock)
        shutil.rmtree(self.verified)
        shutil.rmtree(self.partial)
        return bool(verified)

    def _place(self, entry: Entry, keep: bool) -> None:
        target = self.path / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if keep:
            shutil.copyfile(self.verified / entry.sha256, target)
        else:
            os.replace(self.verified / entry.sha256, target)

    def _prune(self, lock: Lock) -> None:
        if self.previous_file.exists():
            kept = {entry.path for entry in lock.entries}
            for entry in lockfile.read(self.previous_file).entries:
                if entry.path not in kept:
                    (self.path / entry.path).unlink(missing_ok=True)
            self.previous_file.unlink()

    def touch_used(self) -> None:
        """Record that the model was used now, if this user may write there."""
        if os.access(self.own, os.W_OK):
            self.used_file.touch()


def _config_last(entry: Entry) -> tuple[bool, str]:
    """config.json is placed last, because a folder that has it counts as a model's."""
    return entry.path == "config.json", entry.path


@contextlib.contextmanager
def exclusive(folder: WeightsFolder, progress: Progress) -> Iterator[None]:
    """Let one process at a time change the folder, across containers and hosts.

    Waits as long as another process holds the mutex, and shows who that is. The kernel (or the NFS
    server) releases the mutex when its holder dies.
    """
    mutex = FileLock(folder.mutex_file)
    while not _is_acquired(mutex):
        progress.begin(f"waiting for {_holder(folder)}, which is working on {folder.path}", 0)
    try:
        folder.holder_file.write_text(
            f"process {os.getpid()} on {socket.gethostname()} (since {time.strftime('%F %T')})"
        )
        yield
    finally:
        mutex.release()


def _is_acquired(mutex: FileLock) -> bool:
    try:
        mutex.acquire(timeout=MUTEX_RETRY_S)
    except Timeout:
        return False
    return True


def _holder(folder: WeightsFolder) -> str:
    try:
        return folder.holder_file.read_text()
    except OSError:  # it holds the mutex and has not yet written who it is
        return "another process"


def remove(path: Path) -> int:
    """Remove a model folder, or the link to one; returns the bytes freed.

    Raises ConfigurationError for anything that is not a model folder. Waits while another process
    is changing the folder.
    """
    if path.is_symlink():
        path.unlink()
        return 0
    folder = WeightsFolder(path)
    if not is_present(path) and not folder.own.is_dir():
        raise ConfigurationError(f"{path} is not a model folder; `scripts/weights list` shows those that are here")
    size = size_on_disk(path)
    if folder.own.is_dir():
        with exclusive(folder, Progress()):
            shutil.rmtree(path)
    else:
        shutil.rmtree(path)
    return size


def size_on_disk(folder: Path) -> int:
    """Bytes that the files of a folder occupy; 0 for a link."""
    if folder.is_symlink():
        return 0
    return sum(_blocks(os.path.join(root, name)) for root, _, names in os.walk(folder) for name in names) * 512


def _blocks(file: str) -> int:
    """Blocks of 512 bytes; 0 if a running fetch has just moved the file."""
    try:
        return os.lstat(file).st_blocks
    except FileNotFoundError:
        return 0
