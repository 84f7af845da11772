"""The memory that the bodies of all requests may take together, those that are still arriving too."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from lingbi.api_errors import Busy
from lingbi.http.admission.requests import HEADERS, RETRY_AFTER_S
from lingbi.turns import USUAL_WEIGHT, Asker, share_of

NEWCOMER = "a newcomer"  # no key's name has a space
MIB = 1 << 20


@dataclass(eq=False)
class Turn:
    """One who waits for room. comes: done once it has it; made on a running event loop."""

    asker: Asker
    size: int
    comes: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BodyRoom:
    """Counts the bytes of bodies from when they are announced until their requests have ended.

    Beyond its share, a key leaves a quarter free for others; its share is what it would have if one more key held some.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.kept_bytes = limit_bytes, limit_bytes // 4
        self.held: Counter[str] = Counter()  # bytes by key
        self.weights: dict[str, int] = {}  # of the keys that hold some
        self.waiting: list[Turn] = []

    def free_for(self, asker: Asker) -> int:
        """How many bytes more a key may have now."""
        share = share_of(self.limit_bytes, asker, self.weights | {NEWCOMER: USUAL_WEIGHT})
        left = self.limit_bytes - self.held.total()
        return max(min(share - self.held[asker.name], left), left - self.kept_bytes)

    def take(self, asker: Asker, size: int) -> None:
        """Count so many bytes more of a key. Raises Busy."""
        if size > self.free_for(asker):
            raise Busy(
                f"the requests that are under way hold {self.held.total() // MIB} MiB, {self.held[asker.name] // MIB} of them "
                f"of this key, and at most {self.limit_bytes // MIB} are for all (LINGBI_BODIES_MIB); send smaller pictures, "
                f"or try again in {RETRY_AFTER_S} s",
                reason="bodies",
                headers=HEADERS,
            )
        self._count(asker, size)

    def _count(self, asker: Asker, size: int) -> None:
        self.held[asker.name] += size
        self.weights[asker.name] = asker.weight

    async def wait(self, asker: Asker, size: int) -> None:
        """Count so many bytes more of a key as soon as it may have them; those who wait of a key go in their order."""
        turn = Turn(asker, size)
        self.waiting.append(turn)
        self._call()
        try:
            await turn.comes
        except asyncio.CancelledError:
            if turn in self.waiting:
                self.waiting.remove(turn)
                self._call()  # those behind it may be smaller
            else:
                self.give_back(asker, size)
            raise

    def _call(self) -> None:
        """Let those go on who wait and for whom there is room now."""
        behind = set[str]()
        for turn in [turn for turn in self.waiting if not turn.comes.cancelled()]:
            if turn.asker.name in behind or turn.size > self.free_for(turn.asker):
                behind.add(turn.asker.name)
                continue
            self.waiting.remove(turn)
            self._count(turn.asker, turn.size)
            turn.comes.set_result(None)

    def give_back(self, asker: Asker, size: int) -> None:
        """Count so many bytes no longer."""
        self.held[asker.name] -= size
        if not self.held[asker.name]:
            del self.held[asker.name]
            self.weights.pop(asker.name, None)
        self._call()


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

    async def wait(self, size: int) -> None:
        """Count a body that has not come yet with so many bytes, once there is room for it."""
        await self.room.wait(self.asker, size)
        self.size = size

    def end(self) -> None:
        """The request is over."""
        self.room.give_back(self.asker, self.size)
        self.size = 0
