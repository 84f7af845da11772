"""A temporary folder for one process, for programs that end without an orderly interpreter shutdown."""

import contextlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Remove all temporary files and folders, those of libraries included, when the block ends.

    Enter it before torch is imported: torch creates a folder then, and removes it only at an orderly shutdown.
    """
    with tempfile.TemporaryDirectory(prefix="lingbi-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = None
