"""How many batch lines a worker asks at once: all that fit while nobody else asks, few enough not to be noticed otherwise.

Interactive answers are compared with their own pace: the time for a token that they had while fewest lines ran beside them.
Where they become slower than SLOWEST times that, fewer lines may run; while they are not, one more each time.
"""

from __future__ import annotations

from dataclasses import dataclass

QUIET_S = 5.0  # after so long without interactive requests, a worker belongs to the batches
SLOWEST = 1.1
DOWN = 0.7
FIRST_SHARE = 4  # of the places, when somebody begins to ask: a quarter


@dataclass(frozen=True)
class Seen:
    """What happened since the last look. token_s: seconds a token of interactive answers; None where none was made."""

    interactive: int
    token_s: float | None
    running_lines: int


class Pace:
    """places: answers at once; `allowed` lines may run."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.allowed = places
        self.quiet_since: float | None = 0.0
        self.best_s: float | None = None

    def look(self, now: float, seen: Seen) -> int:
        """Judge what was seen up to now (seconds of a monotonic clock); returns how many lines may run."""
        if seen.interactive == 0:
            return self._quiet(now)
        if self.quiet_since is not None:
            self.quiet_since, self.best_s = None, None
            self.allowed = min(self.allowed, max(1, self.places // FIRST_SHARE))
        if seen.token_s is not None:
            self._judge(seen.token_s, seen.running_lines)
        return self.allowed

    def _quiet(self, now: float) -> int:
        if self.quiet_since is None:
            self.quiet_since = now
        if now - self.quiet_since >= QUIET_S:
            self.allowed = self.places
        return self.allowed

    def _judge(self, token_s: float, running_lines: int) -> None:
        self.best_s = token_s if self.best_s is None else min(self.best_s, token_s)
        if token_s > SLOWEST * self.best_s and running_lines:
            self.allowed = max(1, int(min(self.allowed, running_lines) * DOWN))
        elif running_lines >= self.allowed:
            self.allowed = min(self.places, self.allowed + 1)
