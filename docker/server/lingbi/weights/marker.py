"""The marker of a full check: sizes and times of every file as they were when all was proven.

While they stay as they are, nothing is hashed again. A marker made by the machine that has just
written the files holds only until that machine starts anew: a crash may lose bytes that were
hashed from memory and never reached the disk.
"""

import json
import os
import time
from pathlib import Path

from lingbi.files import write_text
from lingbi.weights.lockfile import Lock

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def write(marker: Path, folder: Path, lock: Lock, written_now: bool) -> None:
    """Write the marker of a folder whose files were all proven; written_now: by a fetch on this machine."""
    body = {
        "digest": lock.digest,
        "boot": boot_id() if written_now else None,
        "checked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {entry.path: state(folder, entry.path) for entry in lock.entries},
    }
    write_text(marker, json.dumps(body))


def state(folder: Path, path: str) -> list | None:
    """[size in bytes, modification time in ns] of a file, or None where it is missing."""
    try:
        status = os.stat(os.path.join(folder, path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [status.st_size, status.st_mtime_ns]


def doubt(marker: Path, folder: Path, lock: Lock) -> str | None:
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
    changed = [entry.path for entry in lock.entries if files.get(entry.path) != state(folder, entry.path)]
    return f"{', '.join(changed[:3])} changed since the last check" if changed else None
