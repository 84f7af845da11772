"""A process's own temporary folder, for programs that end without an interpreter's orderly end."""

import contextlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Have temporary files and folders, libraries' too, gone when the block ends.

    Enter it before torch is imported, which makes a folder then and removes it at an orderly end only.
    """
    with tempfile.TemporaryDirectory(prefix="lingbi-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = None
