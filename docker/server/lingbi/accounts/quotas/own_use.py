"""How limits stand by what one worker knows: for the time in which the database is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import tzinfo

from lingbi.accounts.entries import Entry
from lingbi.accounts.facts import MEASURES, KeyFacts, Limit
from lingbi.accounts.periods import Span, span_of
from lingbi.accounts.quotas.decision import Asked, Standing, Verdict, subject_of
from lingbi.accounts.quotas.use import Use, counted

NOTHING: Use = (0, 0, 0)
Place = tuple[str, str, str, int]  # subject, measure, period and its end


@dataclass
class Taken:
    """A request that this worker has let in.

    asked: the most that it may still take; at: when it came, seconds since the epoch; told: what was counted of it; use:
    what it has used in all, None while it runs.
    """

    key: KeyFacts
    asked: Asked
    at: float
    beyond: frozenset[str] = frozenset()
    told: Use = NOTHING
    use: Use | None = None
    ended_at: float = 0.0  # by time.monotonic()

    def rest(self, measure: str) -> int:
        """What is still to be counted of a request that has ended."""
        place = MEASURES.index(measure)
        return self.use[place] - self.told[place] if self.use else 0

    @property
    def subjects(self) -> set[str]:
        """Whose limits it counts against."""
        return {subject_of(limit, self.key) for limit in self.key.limits}


class OwnUse:
    """What was last read of each limit, and what this worker has let in that is not in it. Any thread may call it."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self.taken: dict[str, Taken] = {}  # until they are counted
        self._read: dict[Place, int] = {}  # what is used
        self._lock = threading.Lock()

    def begin(
        self, request: str, key: KeyFacts, verdict: Verdict, now: float, given_up: threading.Event | None = None
    ) -> bool:
        """Note a request that was let in, unless it was given up, which comes before its end; whether it was noted."""
        with self._lock:  # as its end does: it is noted before that, or finds that it was given up
            if given_up and given_up.is_set():
                return False
            self.taken[request] = Taken(key, verdict.asked, now, verdict.beyond)
            return True

    def end(self, request: str, use: Use) -> None:
        """Note what a request has used, now that it has ended."""
        with self._lock:
            if taken := self.taken.get(request):
                taken.use, taken.ended_at = use, time.monotonic()

    def count(self, entries: Iterable[Entry]) -> None:
        """Note what the database has counted, as `add_use` did."""
        with self._lock:
            for entry in entries:
                if taken := self.taken.get(entry.id):
                    self._count(taken, counted(entry))
                    if entry.status is not None:
                        del self.taken[entry.id]

    def _count(self, taken: Taken, use: Use) -> None:
        requests, tokens, images = (told + more for told, more in zip(taken.told, use, strict=True))
        taken.told = requests, tokens, images
        taken.asked = replace(taken.asked, tokens=max(0, taken.asked.tokens - use[1]))
        for limit in taken.key.limits:
            place = place_of(limit, taken.key, span_of(limit.period, taken.at, self.zone).end)
            self._read[place] = self._read.get(place, 0) + use[MEASURES.index(limit.measure)]

    def drop(self, requests: Iterable[str]) -> None:
        """Forget requests."""
        with self._lock:
            for request in requests:
                self.taken.pop(request, None)

    def read(self, key: KeyFacts, standings: Iterable[Standing], now: float) -> None:
        """Note how the database says that a key's limits stand, and forget what it said of periods that are over."""
        with self._lock:
            self._read = {place: used for place, used in self._read.items() if place[3] > now}
            for found in standings:
                self._read[place_of(found.limit, key, found.resets_at)] = found.used

    def standings(self, key: KeyFacts, now: float) -> tuple[Standing, ...]:
        """How each limit of a key stands, as far as this worker knows."""
        with self._lock:
            return tuple(self._standing(limit, key, span_of(limit.period, now, self.zone)) for limit in key.limits)

    def _standing(self, limit: Limit, key: KeyFacts, span: Span) -> Standing:
        subject = subject_of(limit, key)
        own = [taken for taken in self.taken.values() if subject in taken.subjects]
        ended = sum(taken.rest(limit.measure) for taken in own if span.start <= taken.at < span.end)
        running = [taken for taken in own if taken.use is None]
        beyond = [taken for taken in running if subject in taken.beyond]
        holding = [taken for taken in running if limit.measure != "tokens" or subject not in taken.beyond]
        used = self._read.get(place_of(limit, key, span.end), 0) + ended
        return Standing(limit, span.end, used, sum(taken.asked.of(limit.measure) for taken in holding), bool(beyond))


def place_of(limit: Limit, key: KeyFacts, end: int) -> Place:
    """Where the use that counts against a limit is noted, in its period with this end."""
    return subject_of(limit, key), limit.measure, limit.period, end
