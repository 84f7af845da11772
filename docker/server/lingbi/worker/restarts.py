"""Remembers over restarts why a worker ended, so that /metrics can count it."""

import json
import logging
from collections import Counter
from pathlib import Path

from lingbi.files import write_text

log = logging.getLogger(__name__)
RUNNING, CRASHED = "running", "crashed"


class Restarts:
    """One worker's file: why it was started again, how often; gone after an orderly end."""

    def __init__(self, file: Path):
        self.file = file
        self.reasons = self._read()
        self._write(RUNNING)

    def _read(self) -> Counter:
        try:
            known = json.loads(self.file.read_text())
            reasons, last = Counter(known["reasons"]), known["last"]
        except FileNotFoundError:
            return Counter()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the record of restarts %s is unusable and begins anew: %r", self.file, error)
            return Counter()
        reasons[CRASHED if last == RUNNING else last] += 1
        return reasons

    def _write(self, last: str) -> None:
        write_text(self.file, json.dumps({"reasons": self.reasons, "last": last}))

    def note(self, reason: str) -> None:
        """The worker is about to end for this reason, to be started again."""
        self._write(reason)

    def forget(self) -> None:
        """The worker ends in order."""
        self.file.unlink(missing_ok=True)
