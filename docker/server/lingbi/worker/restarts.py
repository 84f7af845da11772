"""Remembers across restarts why a worker ended, so that /metrics can count the reasons."""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lingbi.files import write_text

log = logging.getLogger(__name__)
RUNNING, CRASHED = "running", "crashed"


class Restarts:
    """One worker's file of restarts counted by reason; an orderly exit removes it.

    reasons: as another process of this worker has counted them already; None to count this start.
    """

    def __init__(self, file: Path, reasons: Mapping[str, int] | None = None) -> None:
        self.file = file
        self.reasons = Counter(reasons) if reasons is not None else self._read()
        if reasons is None:
            self._write(RUNNING)

    def _read(self) -> Counter[str]:
        try:
            known = json.loads(self.file.read_text())
            reasons: Counter[str] = Counter(known["reasons"])
            last = known["last"]
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
        """Note the reason for which the worker is about to exit and be restarted."""
        self._write(reason)

    def forget(self) -> None:
        """Remove the record: the worker exits in an orderly way."""
        self.file.unlink(missing_ok=True)
