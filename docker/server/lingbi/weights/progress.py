"""How far a fetch or check is: for a terminal a bar, for logs a line every few seconds, for /ready numbers."""

import contextlib
import logging
import sys
import threading
import time
from collections import deque

from tqdm import tqdm

log = logging.getLogger("lingbi.weights")
LOG_EVERY_S = 5
BAR_EVERY_S = 0.2
RATE_WINDOW_S = 15


class Progress:
    """Bytes done of a total, and what is being done; add() may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin("", 0)

    def begin(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Enter a phase of so many bytes, of which some are there already."""
        with self._lock:
            self.phase, self.total_bytes, self.done_bytes = phase, total_bytes, done_bytes
            self._seen = deque([(time.monotonic(), done_bytes)])

    def set(self, report: dict | None) -> None:
        """Show what another process reports of its own progress (see report), or nothing."""
        report = report or {"phase": "", "total_bytes": 0, "done_bytes": 0}
        if (self.phase, self.total_bytes) != (report["phase"], report["total_bytes"]):
            self.begin(report["phase"], report["total_bytes"], report["done_bytes"])
        self.add(report["done_bytes"] - self.done_bytes)

    def add(self, count: int) -> None:
        if count:
            with self._lock:
                self.done_bytes += count

    def report(self) -> dict:
        """phase, done_bytes, total_bytes, bytes_per_s (over the last seconds) and seconds_left (or None)."""
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
                "seconds_left": left and round(left),
            }


def sentence(report: dict) -> str:
    """A progress report as one line."""
    if not report["total_bytes"]:
        return report["phase"]
    done, total = report["done_bytes"], report["total_bytes"]
    left = "" if report["seconds_left"] is None else f", {tqdm.format_interval(report['seconds_left'])} left"
    return (
        f"{report['phase']}: {done / 1e9:.2f} of {total / 1e9:.2f} GB ({100 * done / total:.0f} %), "
        f"{report['bytes_per_s'] / 1e6:.1f} MB/s{left}"
    )


def shown(progress: Progress, stream=None):
    """Show progress while the block runs: a bar on a terminal, else a line every few seconds."""
    stream = stream or sys.stderr
    if stream.isatty():
        return _beside(_show_bar, progress, stream)
    return _beside(_show_lines, progress, lambda line: print(line, file=stream, flush=True))


def logged(progress: Progress):
    """Log progress while the block runs, a line every few seconds: for a server."""
    return _beside(_show_lines, progress, lambda line: log.info("%s", line))


@contextlib.contextmanager
def _beside(show, *arguments):
    done = threading.Event()
    thread = threading.Thread(target=show, args=(*arguments, done), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show_lines(progress: Progress, write, done: threading.Event) -> None:
    shown_phase = ""
    while not done.wait(LOG_EVERY_S):
        report = progress.report()
        if report["total_bytes"] or report["phase"] != shown_phase:
            write(sentence(report))
        shown_phase = report["phase"]


def _show_bar(progress: Progress, stream, done: threading.Event) -> None:
    bar, phase = None, ""
    while not done.wait(BAR_EVERY_S):
        if progress.phase != phase:
            phase = progress.phase
            bar = _next_bar(bar, progress, stream)
        if bar is not None:
            bar.update(progress.done_bytes - bar.n)
            bar.refresh()
    _next_bar(bar, Progress(), stream)


def _next_bar(bar, progress: Progress, stream):
    """Close a bar; the next phase's bar, or its name alone where it has no bytes."""
    if bar is not None:
        bar.close()
    if progress.total_bytes:
        name, total, done = progress.phase, progress.total_bytes, progress.done_bytes
        return tqdm(desc=name, total=total, initial=done, unit="B", unit_scale=True, file=stream, dynamic_ncols=True)
    if progress.phase:
        print(progress.phase, file=stream, flush=True)
    return None
