"""How a command that moves weights ends at a signal."""

import os
import signal
from functools import partial
from types import FrameType

STDERR = 2
RESUMABLE = "; progress is kept: run the same command again to resume"


def end_at_signals(is_resumable: bool = True) -> None:
    """On SIGTERM and Ctrl-C, exit at once with 128 plus the signal's number, also as process 1.

    No cleanup is needed, because what a resumable command has done is on the disk at every moment.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, partial(_end, f"\ninterrupted{RESUMABLE if is_resumable else ''}\n"))


def _end(message: str, number: int, _frame: FrameType | None) -> None:
    try:
        # Not print(): the signal may have come while this thread was printing, and stderr's buffer is not reentrant.
        os.write(STDERR, message.encode())
    finally:  # even if nobody reads stderr any more
        os._exit(128 + number)
