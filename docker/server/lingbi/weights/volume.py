"""What a models folder holds: list it, verify it, remove from it."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.model.resolve import is_present
from lingbi.weights import lockfile, marker
from lingbi.weights.checking import find_faults
from lingbi.weights.entries import OWN_FOLDER
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.lockfile import Lock
from lingbi.weights.mutex import held
from lingbi.weights.progress import Progress


@dataclass(frozen=True)
class Held:
    """One folder of a volume: its size on disk in bytes, its state, and when it was last used (epoch s)."""

    path: Path
    size: int
    state: str
    used_s: float | None

    def line(self) -> str:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.used_s)) if self.used_s else "never"
        return f"{self.path.name:<40} {self.size / 1e9:>7.2f} GB  last used {used:<16}  {self.state}"


def contents(models_dir: Path) -> list:
    """Every model folder of a volume, also those that are not complete, by name."""
    if not models_dir.is_dir():
        return []
    folders = [path for path in sorted(models_dir.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [_describe(path) for path in folders if is_present(path) or (path / OWN_FOLDER).is_dir()]


def _describe(path: Path) -> Held:
    folder = WeightsFolder(path)
    used = folder.used_file.stat().st_mtime if folder.used_file.exists() else None
    return Held(path, size_on_disk(path), _state(folder), used)


def _state(folder: WeightsFolder) -> str:
    if folder.path.is_symlink():
        return f"shared, in {folder.path.resolve()}"
    lock = folder.lock()
    if lock is None:
        return "not fetched by lingbi" if is_present(folder.path) else "not complete: fetch it again to go on"
    doubt = marker.doubt(folder.marker_file, folder.path, lock)
    return f"{lock.model} at {lock.revision}, bytes {lock.digest[:12]}, {doubt or 'proven'}"


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


def verify(path: Path, lock_file: Path | None, progress: Progress) -> dict:
    """Full check of a folder by a lock file, or its own: {path: fault}; a new marker where all is right.

    Raises ConfigurationError where there is no lock to check by.
    """
    folder = WeightsFolder(path)
    lock = _lock_of(folder, lock_file)
    faults = find_faults(path, lock.entries, progress)
    extra = [name for name in _code(path) if name not in {entry.path for entry in lock.entries}]
    faults |= {name: "is not in the lock" for name in extra}
    if not faults and lock_file is None and os.access(folder.own, os.W_OK):
        with held(folder, progress):
            marker.write(folder.marker_file, path, lock, written_now=False)
    return faults


def _lock_of(folder: WeightsFolder, lock_file: Path | None) -> Lock:
    lock = lockfile.read(lock_file) if lock_file else folder.lock()
    if lock is None:
        raise ConfigurationError(f"{folder.path} has no lock of its own; give the lock file to check by in --lock")
    return lock


def _code(path: Path) -> list:
    return sorted(file.name for file in path.glob("*.py"))


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
