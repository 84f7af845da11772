"""Writes files atomically, and says where the processes of a state folder listen for each other."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

SOCKET_PATH_LIMIT = 100  # the kernel's 108 bytes, less the suffix that supervisor adds while it binds
MACHINES_FOLDER = Path(
    tempfile.gettempdir()
)  # for all processes, also for those that take a temporary folder of their own


def write_text(file: Path, text: str) -> None:
    """Write a file atomically, in UTF-8: whoever reads it, even after a kill, finds the old text or the new one."""
    with rewritten(file) as stream:
        stream.write(text)


@contextlib.contextmanager
def rewritten(file: Path) -> Iterator[TextIO]:
    """A stream to a file's new text, in UTF-8, which takes the place of the old one when the block ends without a fault."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def socket_path(state_dir: Path, name: str) -> Path:
    """The socket of this name; in the temporary folder when the state folder's path is too long."""
    path = state_dir / "run" / f"{name}.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    owner = (
        state_dir.stat().st_uid if state_dir.exists() else os.getuid()
    )  # a service may be another user's than root's
    return MACHINES_FOLDER / f"lingbi-{owner}-{digest}-{name}.sock"
