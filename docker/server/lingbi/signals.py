"""How commands end at a signal: at once where all that was done is on the disk, else after cleaning up."""

import os
import signal
from functools import partial
from types import FrameType

STDERR = 2
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESUMABLE = "; progress is kept: run the same command again to resume"


def end_at_signals(note: str = "", is_resumable: bool = True) -> None:
    """On SIGTERM, Ctrl-C and a closed terminal, exit at once with 128 plus the signal's number, also as process 1.

    No cleanup is needed, because what a resumable command has done is on the disk at every moment. note: what else to say.
    """
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]  # nohup
    for number in (signal.SIGTERM, signal.SIGINT, *hangup):
        signal.signal(number, partial(_end, f"\ninterrupted{note}{RESUMABLE if is_resumable else ''}\n"))


def _end(message: str, number: int, _frame: FrameType | None) -> None:
    try:
        # Not print(): the signal may have come while this thread was printing, and stderr's buffer is not reentrant.
        os.write(STDERR, message.encode())
    finally:  # even if nobody reads stderr any more
        os._exit(128 + number)


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM, or a closed terminal; number: the signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def interrupt_at_signals() -> None:
    """Raise Interrupted at the first terminating signal; a signal that is ignored (nohup) stays ignored."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    hold_signals()
    raise Interrupted(number)


def hold_signals() -> None:
    """Ignore further signals: a second Ctrl-C would interrupt the cleanup and leave processes running."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
