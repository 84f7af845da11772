"""Keeps Python's garbage collector away from objects that live as long as the process."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Turn garbage collection off in the block.

    The objects that an import creates stay, and every full collection would examine all of them again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_from_collector() -> None:
    """Exclude all objects that exist now from garbage collection.

    A full collection examines about 270 000 objects of the libraries, and every stream stalls in the meantime.
    """
    gc.collect()
    gc.freeze()
