"""The full check: every file's SHA-256, on several threads, at the rate of disk or hash."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lingbi.weights.entries import Entry
from lingbi.weights.progress import Progress

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
