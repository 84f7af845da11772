"""Whether a folder's files are what a lock says: the full check, and the marker that makes it unnecessary.

The full check hashes every file. The marker then holds the size and time of every file; while these
stay the same, nothing is hashed again. A marker from the machine that wrote the files is valid only
until that machine reboots: a crash may lose bytes that were hashed from memory and never reached
the disk.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.files import write_text
from lingbi.weights import lockfile
from lingbi.weights.folder import WeightsFolder, exclusive
from lingbi.weights.lockfile import CODE_SUFFIX, OWN_FOLDER, Entry, Lock
from lingbi.weights.progress import Progress

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
READ_BYTES = 1 << 20
THREADS = min(4, os.cpu_count() or 1)


def verify(path: Path, lock_file: Path | None, progress: Progress) -> dict[str, str]:
    """Fully check a folder against a lock file, or its own lock; returns {path: what is wrong with it}.

    Renews the marker if nothing is wrong. Raises ConfigurationError if there is no lock to check against.
    """
    folder = WeightsFolder(path)
    lock = _lock_of(folder, lock_file)
    faults = find_faults(path, lock.entries, progress)
    locked = {entry.path for entry in lock.entries}
    faults |= {
        file.name: "is not in the lock" for file in sorted(path.glob(f"*{CODE_SUFFIX}")) if file.name not in locked
    }
    if not faults and lock_file is None and os.access(folder.own, os.W_OK):
        with exclusive(folder, progress):
            write_marker(folder.marker_file, path, lock, written_now=False)
    return faults


def _lock_of(folder: WeightsFolder, lock_file: Path | None) -> Lock:
    if not folder.path.is_dir():
        raise ConfigurationError(f"{folder.path} is not there; fetch it first (scripts/fetch)")
    lock = lockfile.read(lock_file) if lock_file else folder.lock()
    if lock is None:
        raise ConfigurationError(f"{folder.path} has no lock of its own; pass the lock file to check against in --lock")
    return lock


def find_faults(
    folder: Path, entries: Iterable[Entry], progress: Progress, stop: threading.Event | None = None
) -> dict[str, str]:
    """{path: what is wrong with it} of the files that differ from their entries; empty when all match."""
    entries = sorted(entries, key=lambda entry: -entry.size)  # largest first, so that the threads end together
    progress.begin("checking weights", sum(entry.size for entry in entries))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as pool:
        faults = pool.map(lambda entry: _fault(folder / entry.path, entry, progress, stop), entries)
        return {entry.path: fault for entry, fault in zip(entries, faults, strict=True) if fault}


def _fault(file: Path, entry: Entry, progress: Progress, stop: threading.Event | None) -> str | None:
    try:
        size = file.stat().st_size
        if not file.is_file():
            return "is not a file"
        if size != entry.size:
            return f"has {size} bytes instead of {entry.size}"
        return None if hash_file(file, progress, stop) == entry.sha256 else "does not match its SHA-256"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def measure(folder: Path, model: str, revision: str, progress: Progress) -> Lock:
    """A lock of the files that are in a folder now, which nothing else vouches for; all are hashed."""
    paths = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_left_out(path.relative_to(folder))
    ]
    progress.begin("hashing weights", sum(path.stat().st_size for path in paths))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as pool:
        hashes = pool.map(lambda path: hash_file(path, progress), paths)
        entries = [
            Entry(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
            for path, digest in zip(paths, hashes, strict=True)
        ]
    lockfile.check_entries(entries, str(folder))
    return Lock(model, revision, tuple(entries))


def _is_left_out(path: Path) -> bool:
    """Whether a file beside a model is none of the model's: lingbi's own, git's, or what Python compiled."""
    return not {OWN_FOLDER, ".git", "__pycache__"}.isdisjoint(path.parts)


def hash_file(file: Path, progress: Progress | None = None, stop: threading.Event | None = None) -> str:
    """SHA-256 of a file in hex. Other threads run on while it reads and hashes; after stop the hash is wrong."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(READ_BYTES))
    with file.open("rb", buffering=0) as stream:
        while (count := stream.readinto(buffer)) and not (stop and stop.is_set()):
            digest.update(buffer[:count])
            if progress:
                progress.add(count)
    return digest.hexdigest()


def describe(faults: dict[str, str], limit: int = 3) -> str:
    """The first faults as one sentence, with remote code first and marked."""
    paths = sorted(faults, key=lambda path: (not path.endswith(CODE_SUFFIX), path))
    shown = [f"{'REMOTE CODE ' if path.endswith(CODE_SUFFIX) else ''}{path} {faults[path]}" for path in paths[:limit]]
    more = f", and {len(paths) - limit} more" if len(paths) > limit else ""
    return "; ".join(shown) + more


def write_marker(marker: Path, folder: Path, lock: Lock, written_now: bool) -> None:
    """Write the marker of a fully checked folder; written_now: whether this machine has just written the files."""
    body = {
        "digest": lock.digest,
        "boot": boot_id() if written_now else None,
        "checked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {entry.path: size_and_time(folder, entry.path) for entry in lock.entries},
    }
    write_text(marker, json.dumps(body))


def reason_to_recheck(marker: Path, folder: Path, lock: Lock) -> str | None:
    """Why the files must be hashed again, or None while the marker is valid."""
    try:
        body = json.loads(marker.read_text())
        files, digest, boot = body["files"], body["digest"], body["boot"]
    except FileNotFoundError:
        return "there is no record of a full check"
    except (ValueError, LookupError, TypeError):
        return f"{marker} cannot be read"
    if digest != lock.digest:
        return "the lock has changed"
    if boot not in (None, boot_id()):
        return "the machine that fetched the files has rebooted since, or this is another machine"
    changed = [entry.path for entry in lock.entries if files.get(entry.path) != size_and_time(folder, entry.path)]
    return f"{', '.join(changed[:3])} changed since the last check" if changed else None


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def size_and_time(folder: Path, path: str) -> list[int] | None:
    """[size in bytes, modification time in ns] of a file, or None if it is missing; a list, as JSON has it."""
    try:
        status = os.stat(os.path.join(folder, path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [status.st_size, status.st_mtime_ns]
