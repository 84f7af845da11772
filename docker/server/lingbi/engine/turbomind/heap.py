"""Makes malloc keep the memory that TurboMind copies images into, so that no prompt waits for fresh pages.

TurboMind makes its own copy of every image's features, 10 MB for vl-7b, and the GPU waits for it. By default malloc maps
such a block anew each time and returns it: 2450 pages, each of which the kernel clears when it is first written to.
"""

import ctypes
import logging

log = logging.getLogger(__name__)
# Parameters of mallopt(3), from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT_BYTES = 1 << 30  # free memory that stays at the end of the heap: the images of 100 answers
LARGEST_BLOCK = 32 << 20  # the most that glibc takes from the heap in one piece; larger blocks are always mapped


def share_one_heap() -> None:
    """Have all threads that begin from now on use the process's first heap, which keeps what is freed.

    Call it before the first thread: a thread's own heap gives its pages back. Without effect, and with a line in the
    log, where malloc declines.
    """
    malloc = ctypes.CDLL(None)
    for parameter, value in ((ARENA_MAX, 1), (MMAP_THRESHOLD, LARGEST_BLOCK), (TRIM_THRESHOLD, KEPT_BYTES)):
        if not malloc.mallopt(parameter, value):
            log.warning("malloc keeps to its own ways: mallopt(%s, %s) was refused", parameter, value)


def touch_ahead(count: int, size_bytes: int) -> None:
    """Make the heap hold this many free blocks of this size, with every page in memory."""
    malloc = ctypes.CDLL(None)
    malloc.malloc.restype, malloc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    malloc.free.argtypes = [ctypes.c_void_p]
    blocks = [malloc.malloc(size_bytes) for _ in range(count)]
    for block in filter(None, blocks):
        ctypes.memset(block, 0, size_bytes)
        malloc.free(block)
