"""How many requests may be in the house: in all, and for each key."""

from collections import Counter

from lingbi.api_errors import Busy
from lingbi.http.auth import Key

RETRY_AFTER_S = 2


class Admission:
    """Counts requests from the door to the end of their answers.

    limit: running and waiting together; key_limit: of one key that has no limit of its own, 0 for none.
    """

    def __init__(self, limit: int, key_limit: int = 0):
        self.limit, self.key_limit = limit, key_limit
        self.inside, self.by_key = 0, Counter()

    def enter(self, key: Key) -> None:
        """Let a request in. Raises Busy; every one that gets in must leave."""
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
        """A request that got in has ended."""
        self.inside -= 1
        self.by_key[key.name] -= 1
        if not self.by_key[key.name]:
            del self.by_key[key.name]
