"""Runs the command that builds an image: its progress in a few lines, the builder's hundreds of lines in a log."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from host.errors import StartFailed

STEP = re.compile(r"^#\d+ \[(?!internal)([^\]]+)\]", re.M)  # BuildKit's plain progress: `#12 [environment 4/4] RUN …`
EXCERPT = re.compile(r"^Dockerfile:\d+\n-{20}\n(?: +\d+ \|.*\n)+-{20}\n", re.M)
POLL_S, TELL_EVERY_S = 0.5, 20.0
LAST_LINES = 20
Say = Callable[[str], None]


def build(command: list[str], what: str, log: Path, say: Say, tell_every_s: float = TELL_EVERY_S) -> None:
    """Build, and say every so often how far it is. Raises StartFailed with the log's last lines."""
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"image   building {what}; the builder's own lines are in {log}")
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        builder = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        follow(builder, log, say, begun, tell_every_s)
    finally:
        if builder.poll() is None:
            builder.terminate()
            builder.wait()
    took_s = time.monotonic() - begun
    if builder.returncode:
        raise StartFailed(
            f"{what} was not built; see docs/mirrors.md where packages do not come, load a bundle, or use scripts/up --native. "
            f"The end of {log}, which holds all:\n" + end_of(written(log))
        )
    say(f"image   {what} is built, after {took_s:.0f} s")


def follow(builder: subprocess.Popen[bytes], log: Path, say: Say, begun: float, tell_every_s: float) -> None:
    """Return when the builder ends; say meanwhile which step it has begun."""
    told_at = begun
    while builder.poll() is None:
        time.sleep(min(POLL_S, tell_every_s))
        if time.monotonic() - told_at >= tell_every_s:
            told_at = time.monotonic()
            say(f"image   … {told_at - begun:.0f} s: {last_step(written(log))}")


def last_step(text: str) -> str:
    """The step that the builder began last, as in `environment 4/4`."""
    steps = STEP.findall(text)
    return f"step {steps[-1]}" if steps else "preparing"


def end_of(text: str) -> str:
    """The last lines, without the part of the Dockerfile that the builder shows after the reason."""
    return "\n".join(EXCERPT.sub("", text).splitlines()[-LAST_LINES:])


def written(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
