"""Folders that are used in place and never written to: what is known of them lies in the state folder.

Where no lock says which bytes are right, the remote code's hashes of the first use are kept, so
that a change in what a start will execute is named.
"""

import json
import logging
import os
from hashlib import sha256
from pathlib import Path

from lingbi.files import write_text
from lingbi.weights.checking import hash_file
from lingbi.weights.entries import CODE_SUFFIX
from lingbi.weights.lockfile import Lock

log = logging.getLogger("lingbi.weights")


class Record:
    """What this server remembers of one folder: a marker, and the code's hashes."""

    def __init__(self, state_dir: Path, folder: Path):
        self.folder = folder.resolve()
        name = sha256(str(self.folder).encode()).hexdigest()[:16]
        self.marker_file = state_dir / "weights" / f"{name}.marker.json"
        self.code_file = state_dir / "weights" / f"{name}.code.json"

    def changed_code(self) -> list:
        """Remote code that is not as it was at the last use; remembers what it is now."""
        code = {path.name: hash_file(path) for path in sorted(self.folder.glob("*.py"))}
        before = json.loads(self.code_file.read_text()) if self.code_file.exists() else code
        if code != before or not self.code_file.exists():
            write_text(self.code_file, json.dumps(code, indent=1))
        return sorted(path for path in before | code if before.get(path) != code.get(path))


def warn_of_changed_code(record: Record) -> None:
    """Log, for all to see, which remote code changed since the last start."""
    for path in record.changed_code():
        log.warning(
            "REMOTE CODE CHANGED: %s is not as it was at the last start; this server executes it. "
            "Read it, or serve by a lock file (LINGBI_WEIGHTS_LOCK)",
            record.folder / path,
        )


def warn_of_strange_code(folder: Path, lock: Lock) -> None:
    """Log, for all to see, which remote code lies beside what the lock proves."""
    known = {entry.path for entry in lock.entries}
    for name in sorted(name for name in os.listdir(folder) if name.endswith(CODE_SUFFIX) and name not in known):
        log.warning(
            "REMOTE CODE NOT IN THE LOCK: %s; nobody has proven it. Remove it, or read it before you serve beside it",
            folder / name,
        )
