"""Limits how many requests run or wait at once, in total and for each key."""

from collections import Counter

from lingbi.api_errors import Busy
from lingbi.http.auth import Key

RETRY_AFTER_S = 2


class Admission:
    """Counts each request from its admission until its answer ends.

    limit: the most requests that run or wait; key_limit: the most for a key without a limit of its own, 0 for no limit.
    """

    def __init__(self, limit: int, key_limit: int = 0) -> None:
        self.limit, self.key_limit = limit, key_limit
        self.inside = 0
        self.by_key: Counter[str] = Counter()

    def enter(self, key: Key) -> None:
        """Admit a request. Raises Busy; every admitted request must leave."""
        key_limit = key.limit or self.key_limit
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        if self.inside >= self.limit:
            raise Busy(
                f"{self.inside} requests run or wait, and at most {self.limit} may; try again in {RETRY_AFTER_S} s",
                headers=headers,
            )
        if key_limit and self.by_key[key.name] >= key_limit:
            raise Busy(
                f"this key has {self.by_key[key.name]} requests under way, and at most {key_limit} are allowed; "
                "wait for one to end",
                reason="key_limit",
                headers=headers,
            )
        self.inside += 1
        self.by_key[key.name] += 1

    def leave(self, key: Key) -> None:
        """Release the place of an admitted request that has ended."""
        self.inside -= 1
        self.by_key[key.name] -= 1
        if not self.by_key[key.name]:
            del self.by_key[key.name]
