"""How often a visitor may send something: as many at once as in ten seconds, and then evenly."""

import time
from collections.abc import Callable

from lingbi_ui.guard.visitors import Visitor

BURST_S = 10
MAX_KNOWN = 10_000


class Rates:
    """What is left to each visitor; who has been away for the time of a burst is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._left: dict[Visitor, tuple[float, float]] = {}  # and when that was

    def take(self, visitor: Visitor, per_s: float) -> bool:
        """Whether the visitor may send something now."""
        now, most = self.clock(), per_s * BURST_S
        left, since = self._left.pop(visitor, (most, now))
        left = min(most, left + (now - since) * per_s)
        self._left[visitor] = (left - 1 if left >= 1 else left), now
        self._forget(now)
        return left >= 1

    def _forget(self, now: float) -> None:
        """The dictionary is in the order of last use, so each look at its oldest is enough."""
        while self._left:
            oldest = next(iter(self._left))
            if now - self._left[oldest][1] < BURST_S and len(self._left) <= MAX_KNOWN:
                return
            del self._left[oldest]
