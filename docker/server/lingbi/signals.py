"""How a fetch of weights ends at a signal."""

import os
import signal
import sys

TERMINATED, INTERRUPTED = 143, 130


def end_at_signals() -> None:
    """End at once on SIGTERM and Ctrl-C, as process 1 too: what has arrived is journaled at every moment."""
    signal.signal(signal.SIGTERM, lambda *_: _end(TERMINATED))
    signal.signal(signal.SIGINT, lambda *_: _end(INTERRUPTED))


def _end(status: int) -> None:
    print("\ninterrupted; what has arrived is kept: run the same command again to go on", file=sys.stderr, flush=True)
    os._exit(status)
