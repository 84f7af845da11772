"""Writes small files atomically."""

import os
import tempfile
from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Write a file atomically, in UTF-8: whoever reads it, even after a kill, finds the old text or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
