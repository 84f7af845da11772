"""The full check: every file's SHA-256, on several threads, at the rate of disk or hash."""

import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.files import write_text
from lingbi.weights import lockfile
from lingbi.weights.folder import WeightsFolder, held
from lingbi.weights.lockfile import Entry, Lock
from lingbi.weights.progress import Progress

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
READ_BYTES = 1 << 20
THREADS = min(4, os.cpu_count() or 1)


def find_faults(folder: Path, entries, progress: Progress, stop: threading.Event | None = None) -> dict:
    """{path: what is wrong with it} of the files that are not as the entries say; empty when all are right."""
    entries = sorted(entries, key=lambda entry: -entry.size)  # the largest first: threads end together
    progress.begin("checking weights", sum(entry.size for entry in entries))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as pool:
        faults = pool.map(lambda entry: _fault(folder / entry.path, entry, progress, stop), entries)
        return {entry.path: fault for entry, fault in zip(entries, faults, strict=True) if fault}


def _fault(file: Path, entry: Entry, progress: Progress, stop) -> str | None:
    try:
        size = file.stat().st_size
        if not file.is_file():
            return "is no file"
        if size != entry.size:
            return f"has {size} bytes in place of {entry.size}"
        return None if hash_file(file, progress, stop) == entry.sha256 else "has other bytes than its SHA-256"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def hash_file(file: Path, progress: Progress | None = None, stop: threading.Event | None = None) -> str:
    """SHA-256 of a file in hex; hashing and reading leave other threads free."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(READ_BYTES))
    with file.open("rb", buffering=0) as stream:
        while (count := stream.readinto(buffer)) and not (stop and stop.is_set()):
            digest.update(buffer[:count])
            if progress:
                progress.add(count)
    return digest.hexdigest()


def told(faults: dict, shown: int = 3) -> str:
    """Faults as one sentence, remote code first and by that name."""
    paths = sorted(faults, key=lambda path: (not path.endswith(".py"), path))
    words = [f"{'REMOTE CODE ' if path.endswith('.py') else ''}{path} {faults[path]}" for path in paths[:shown]]
    more = f", and {len(paths) - shown} more" if len(paths) > shown else ""
    return "; ".join(words) + more


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
            write_marker(folder.marker_file, path, lock, written_now=False)
    return faults


def _lock_of(folder: WeightsFolder, lock_file: Path | None) -> Lock:
    lock = lockfile.read(lock_file) if lock_file else folder.lock()
    if lock is None:
        raise ConfigurationError(f"{folder.path} has no lock of its own; give the lock file to check by in --lock")
    return lock


def _code(path: Path) -> list:
    return sorted(file.name for file in path.glob("*.py"))


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def write_marker(marker: Path, folder: Path, lock: Lock, written_now: bool) -> None:
    """Write the marker of a folder whose files were all proven; written_now: by a fetch on this machine."""
    body = {
        "digest": lock.digest,
        "boot": boot_id() if written_now else None,
        "checked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {entry.path: size_and_time(folder, entry.path) for entry in lock.entries},
    }
    write_text(marker, json.dumps(body))


def size_and_time(folder: Path, path: str) -> list | None:
    """[size in bytes, modification time in ns] of a file, or None where it is missing."""
    try:
        status = os.stat(os.path.join(folder, path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [status.st_size, status.st_mtime_ns]


def find_doubt(marker: Path, folder: Path, lock: Lock) -> str | None:
    """Why the files must be hashed again, or None where the marker holds."""
    try:
        body = json.loads(marker.read_text())
        files, digest, boot = body["files"], body["digest"], body["boot"]
    except FileNotFoundError:
        return "no full check is on record"
    except (ValueError, LookupError, TypeError):
        return f"{marker} cannot be read"
    if digest != lock.digest:
        return "the lock has changed"
    if boot not in (None, boot_id()):
        return "the machine that fetched has started anew, or this is another one"
    changed = [entry.path for entry in lock.entries if files.get(entry.path) != size_and_time(folder, entry.path)]
    return f"{', '.join(changed[:3])} changed since the last check" if changed else None
