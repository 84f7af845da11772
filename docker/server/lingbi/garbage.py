"""Python's garbage collector: kept from looking at what stays for good."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection in the block: what an import makes stays, and every full one looks at all of it again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_from_collector() -> None:
    """Take what is there now out of Python's garbage collection.

    A full one looks at some 270 000 objects of the libraries, and meanwhile no stream moves.
    """
    gc.collect()
    gc.freeze()
