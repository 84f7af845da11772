"""Limits how many requests run or wait at once, in total and for each key."""

import time
from collections import Counter
from collections.abc import Callable

from lingbi.accounts.facts import KeyFacts
from lingbi.api_errors import Busy, Refusal
from lingbi.turns import USUAL_WEIGHT, Asker, share_of

RETRY_AFTER_S = 2
HEADERS = {"Retry-After": str(RETRY_AFTER_S)}
MOST_BESIDE = 2  # times the limit; so many are let in where none of another key's requests waits that could be refused
RefuseNewest = Callable[[str, Refusal], bool]


class Admission:
    """Counts each request from its admission until its answer ends.

    limit: the most requests that run or wait; key_limit: the most for a key without a limit of its own, 0 for no limit.
    A key may have all places while nobody else asks. A key that has less than its share gets one though all are taken:
    refuse_newest(name, refusal) refuses the newest request of a key that still waits, and returns whether there was one.
    """

    def __init__(self, limit: int, key_limit: int = 0) -> None:
        self.limit, self.key_limit = limit, key_limit
        self.inside = self.in_background = 0
        self.ended = time.monotonic()  # when a request ended last
        self.by_key: Counter[str] = Counter()
        self.by_group: Counter[str] = Counter()
        self.weights: dict[str, int] = {}  # of the keys that have requests inside
        self.refuse_newest: RefuseNewest = lambda name, refusal: False

    def asker(self, key: KeyFacts) -> Asker:
        """The key as one of those who share; its limit is its weight, where it has none of its own."""
        if key.weight is not None:
            return Asker(key.name, key.weight * USUAL_WEIGHT)
        return Asker(key.name, key.concurrency or self.key_limit or USUAL_WEIGHT)

    def enter(self, key: KeyFacts) -> None:
        """Admit a request. Raises Busy; every admitted request must leave."""
        asker = self.asker(key)
        self._check_limits(key)  # first: a request that is refused anyway must cost nobody a place
        if self.inside >= self.limit:
            self._make_room(asker)
        self.inside += 1
        self.by_key[key.name] += 1
        if key.group:
            self.by_group[key.group] += 1
        self.weights[key.name] = asker.weight

    def _check_limits(self, key: KeyFacts) -> None:
        """Raise Busy where the key or its group has as many requests under way as it may."""
        limit = key.concurrency if key.concurrency is not None else self.key_limit or None
        if limit is not None and self.by_key[key.name] >= limit:
            raise Busy(
                f"this key has {self.by_key[key.name]} requests under way, and at most {limit} are allowed "
                "(its own limit, or LINGBI_KEY_CONCURRENCY); wait for one to end",
                reason="key_limit",
                headers=HEADERS,
            )
        group, limit = key.group, key.group_concurrency
        if group and limit is not None and self.by_group[group] >= limit:
            raise Busy(
                f"the keys of the group {group} have {self.by_group[group]} requests under way, and at most {limit} are "
                "allowed; wait for one to end",
                reason="group_limit",
                headers=HEADERS,
            )

    def _make_room(self, asker: Asker) -> None:
        """Refuse this request, or in its place the newest one that waits of the key that has most. Raises Busy."""
        share = share_of(self.limit, asker, self.weights)
        if self.by_key[asker.name] >= share or self.inside >= MOST_BESIDE * self.limit:
            raise Busy(
                f"{self.inside} requests run or wait, and at most {self.limit} may (LINGBI_QUEUE_LIMIT besides those that "
                f"run), {share} of them of this key while others ask; try again in {RETRY_AFTER_S} s",
                headers=HEADERS,
            )
        askers = [Asker(name, weight) for name, weight in self.weights.items()]
        for other in sorted(askers, key=lambda other: -self.by_key[other.name] / other.weight):
            most = share_of(self.limit, other, self.weights | {asker.name: asker.weight})
            if self.by_key[other.name] > most and self.refuse_newest(other.name, given_up(self.limit, most)):
                return

    def enter_background(self) -> None:
        """Have an admitted request wait in the background, of which half of all places are. Raises Busy."""
        most = max(1, self.limit // 2)
        if self.in_background >= most:
            raise Busy(
                f"{self.in_background} requests with service_tier flex run or wait, and at most {most} may; "
                f"try again in {RETRY_AFTER_S} s, or without service_tier",
                reason="background",
                headers=HEADERS,
            )
        self.in_background += 1

    def leave(self, key: KeyFacts, is_background: bool = False) -> None:
        """Release the place of an admitted request that has ended."""
        self.in_background -= is_background
        self.inside -= 1
        self.ended = time.monotonic()
        self.by_key[key.name] -= 1
        if not self.by_key[key.name]:
            del self.by_key[key.name], self.weights[key.name]
        if key.group:
            self.by_group[key.group] -= 1


def given_up(limit: int, share: int) -> Busy:
    """The refusal of a request that waited until another key's took its place."""
    return Busy(
        f"another key's request took the place of this one, which waited: at most {limit} run or wait (LINGBI_QUEUE_LIMIT "
        f"besides those that run), {share} of them of this key while others ask; try again in {RETRY_AFTER_S} s",
        reason="share",
        headers=HEADERS,
    )
