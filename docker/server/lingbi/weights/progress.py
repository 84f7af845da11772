"""How far a fetch or check has come: a bar on a terminal, a line every few seconds in logs, numbers for /ready."""

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn, TextIO, TypedDict

from tqdm import tqdm

log = logging.getLogger("lingbi.weights")
LOG_EVERY_S = 5
BAR_EVERY_S = 0.2
RATE_WINDOW_S = 15


class Report(TypedDict):
    """The state of a Progress; bytes_per_s is over the last seconds, and seconds_left is None while it is zero."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: int
    seconds_left: int | None


class Progress:
    """What is being done, and how many bytes of how many are done; add() may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin("", 0)

    def begin(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Enter a phase of total_bytes, of which done_bytes are already there."""
        with self._lock:
            self.phase, self.total_bytes, self.done_bytes = phase, total_bytes, done_bytes
            self._seen = deque([(time.monotonic(), done_bytes)])

    def set(self, report: Report | None) -> None:
        """Show what another process reported of its own progress, or nothing."""
        phase, total, done = (report["phase"], report["total_bytes"], report["done_bytes"]) if report else ("", 0, 0)
        if (self.phase, self.total_bytes) != (phase, total):
            self.begin(phase, total, done)
        self.add(done - self.done_bytes)

    def add(self, count: int) -> None:
        if count:
            with self._lock:
                self.done_bytes += count

    def report(self) -> Report:
        """Its state now."""
        with self._lock:
            now = time.monotonic()
            self._seen.append((now, self.done_bytes))
            while len(self._seen) > 2 and now - self._seen[0][0] > RATE_WINDOW_S:
                self._seen.popleft()
            since, before = self._seen[0]
            rate = (self.done_bytes - before) / (now - since) if now > since else 0
            left = (self.total_bytes - self.done_bytes) / rate if rate > 0 else None
            return {
                "phase": self.phase,
                "done_bytes": self.done_bytes,
                "total_bytes": self.total_bytes,
                "bytes_per_s": max(round(rate), 0),
                "seconds_left": None if left is None else round(left),
            }


def sentence(report: Report) -> str:
    """A progress report as one line."""
    if not report["total_bytes"]:
        return report["phase"]
    done, total = report["done_bytes"], report["total_bytes"]
    left = "" if report["seconds_left"] is None else f", {tqdm.format_interval(report['seconds_left'])} left"
    return (
        f"{report['phase']}: {done / 1e9:.2f} of {total / 1e9:.2f} GB ({100 * done / total:.0f} %), "
        f"{report['bytes_per_s'] / 1e6:.1f} MB/s{left}"
    )


def shown(progress: Progress, stream: TextIO | None = None) -> contextlib.AbstractContextManager[None]:
    """Show progress on stderr (or stream) while the block runs: a bar on a terminal, else a line every few seconds."""
    stream = stream or sys.stderr
    if stream.isatty():
        return _beside(partial(_show_bar, progress, stream))
    return _beside(partial(_show_lines, progress, partial(print, file=stream, flush=True)))


def logged(progress: Progress) -> contextlib.AbstractContextManager[None]:
    """Log progress while the block runs, as a line every few seconds: for servers."""
    return _beside(partial(_show_lines, progress, partial(log.info, "%s")))


@contextlib.contextmanager
def _beside(show: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run show(done) in a thread while the block runs; done is set at its end."""
    done = threading.Event()
    thread = threading.Thread(target=show, args=(done,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show_lines(progress: Progress, write: Callable[[str], None], done: threading.Event) -> None:
    shown_phase = ""
    while not done.wait(LOG_EVERY_S):
        report = progress.report()
        if report["total_bytes"] or report["phase"] != shown_phase:
            write(sentence(report))
        shown_phase = report["phase"]


def _show_bar(progress: Progress, stream: TextIO, done: threading.Event) -> None:
    bar, phase = None, ""
    while not done.wait(BAR_EVERY_S):
        if progress.phase != phase:
            phase = progress.phase
            bar = _next_bar(bar, progress, stream)
        if bar is not None:
            bar.update(progress.done_bytes - bar.n)
            bar.refresh()
    _next_bar(bar, Progress(), stream)


def _next_bar(bar: "tqdm[NoReturn] | None", progress: Progress, stream: TextIO) -> "tqdm[NoReturn] | None":
    """Close a bar and open the next phase's; a phase without bytes has only its name printed."""
    if bar is not None:
        bar.close()
    if progress.total_bytes:
        name, total, done = progress.phase, progress.total_bytes, progress.done_bytes
        return tqdm(desc=name, total=total, initial=done, unit="B", unit_scale=True, file=stream, dynamic_ncols=True)
    if progress.phase:
        print(progress.phase, file=stream, flush=True)
    return None
