"""The memory that the bodies of all requests may take together, those that are still arriving too."""

from collections import Counter
from dataclasses import dataclass

from lingbi.api_errors import Busy
from lingbi.http.admission.requests import HEADERS, RETRY_AFTER_S
from lingbi.turns import USUAL_WEIGHT, Asker, share_of

NEWCOMER = "a newcomer"  # no key's name has a space
MIB = 1 << 20


class BodyRoom:
    """Counts the bytes of bodies from when they are announced until their requests have ended.

    Beyond its share, a key leaves a quarter free for others; its share is what it would have if one more key held some.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.kept_bytes = limit_bytes, limit_bytes // 4
        self.held: Counter[str] = Counter()  # bytes by key
        self.weights: dict[str, int] = {}  # of the keys that hold some

    def take(self, asker: Asker, size: int) -> None:
        """Count so many bytes more of a key. Raises Busy."""
        share = share_of(self.limit_bytes, asker, self.weights | {NEWCOMER: USUAL_WEIGHT})
        is_within_share = self.held[asker.name] + size <= share
        most = self.limit_bytes if is_within_share else self.limit_bytes - self.kept_bytes
        if self.held.total() + size > most:
            raise Busy(
                f"the requests that are under way hold {self.held.total() // MIB} MiB, {self.held[asker.name] // MIB} of them "
                f"of this key, and at most {self.limit_bytes // MIB} are for all (LINGBI_BODIES_MIB); send smaller pictures, "
                f"or try again in {RETRY_AFTER_S} s",
                reason="bodies",
                headers=HEADERS,
            )
        self.held[asker.name] += size
        self.weights[asker.name] = asker.weight

    def give_back(self, asker: Asker, size: int) -> None:
        """Count so many bytes no longer."""
        self.held[asker.name] -= size
        if not self.held[asker.name]:
            del self.held[asker.name]
            self.weights.pop(asker.name, None)


@dataclass
class HeldBody:
    """What one request's body takes of the room."""

    room: BodyRoom
    asker: Asker
    size: int = 0

    def grow_to(self, size: int) -> None:
        """Count the body with so many bytes, as it announces them or as they have come. Raises Busy."""
        if size > self.size:
            self.room.take(self.asker, size - self.size)
            self.size = size

    def end(self) -> None:
        """The request is over."""
        self.room.give_back(self.asker, self.size)
        self.size = 0
