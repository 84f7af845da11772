"""Whose turn it is: those who ask share what there is, in proportion to their weights.

Pure bookkeeping, without an event loop or threads. What has begun is never stopped, so a newcomer could wait for as long as
another's answers last. Therefore an item begins only if places stay free for the first items of others: for as many as the
reserve, and for everybody who asked a short while ago.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

USUAL_WEIGHT = 16  # of an API key without a limit of its own
RESERVE_SHARE = 8
BACKGROUND = " in the background"  # behind a name; no key's has a space
REMEMBERED_S = 60.0  # for so long after somebody's last question, others leave places free for the next one
Item = TypeVar("Item")


@dataclass(frozen=True)
class Asker:
    """One of those who share: an API key's name, or none for the server's own questions."""

    name: str = ""
    weight: int = USUAL_WEIGHT

    @property
    def in_background(self) -> "Asker":
        """The same, with what begins only when nobody else waits."""
        return Asker(f"{self.name}{BACKGROUND}", self.weight)

    @property
    def is_background(self) -> bool:
        """Whether it asks for what begins only when nobody else waits."""
        return self.name.endswith(BACKGROUND)


NOBODY = Asker()


def reserve_of(places: int) -> int:
    """The places that are kept beside so many: an eighth, and at least one. A single place has none, for want of memory."""
    return max(1, places // RESERVE_SHARE) if places > 1 else 0


def share_of(total: int, asker: Asker, askers: dict[str, int]) -> int:
    """How many of `total` an asker may have beside these others, given as {name: weight}; at least one."""
    weights = askers | {asker.name: asker.weight}
    return max(1, total * asker.weight // sum(weights.values()))


class Turns(Generic[Item]):
    """Gives places to items in fair order: first whoever runs nothing, then whoever runs least for its weight, and the items
    of each in their order. So an asker that runs nothing waits for at most one item more to end than there are askers that
    wait before it.

    places: how many may run, all of one asker too; reserve: further ones, which stay free for first items. An asker's first
    items take any free place. Its others leave free what is kept for first items: the reserve, or as much as those lack
    who asked within REMEMBERED_S, up to half of all. What is asked in the background begins only while nobody else waits, and
    may_begin(how many of it run, places) says so; it is no first item. Among themselves, those who ask so take turns too.
    """

    def __init__(
        self,
        places: int,
        reserve: int,
        clock: Callable[[], float] = time.monotonic,
        may_begin: Callable[[int, int], bool] = lambda running, places: True,
    ) -> None:
        self.places, self.reserve, self.clock = places, reserve, clock
        self.may_begin = may_begin
        self.running: Counter[str] = Counter()
        self.queues: dict[str, deque[Item]] = {}  # whoever was served last stands last
        self.weights: dict[str, int] = {}  # of those that run or wait
        self.seen: dict[Asker, float] = {}  # when each asked last, the latest last

    def __len__(self) -> int:
        """Items that wait."""
        return sum(map(len, self.queues.values()))

    def put(self, asker: Asker, item: Item) -> None:
        """Have an item wait for its turn."""
        if not asker.is_background:
            self.seen.pop(asker, None)
            self.seen[asker] = self.clock()
        self.weights[asker.name] = asker.weight
        self.queues.setdefault(asker.name, deque()).append(item)

    def take(self) -> Item | None:
        """The item that begins to run now; None where nobody waits or nobody may. Each that runs must `leave`."""
        lacking = self._lacking()
        names = [name for name in self._next() if self._may_run(name, lacking)]
        if not names:
            return None
        name = min(names, key=self._running_for_weight)
        queue = self.queues.pop(name)
        item = queue.popleft()
        if queue:
            self.queues[name] = queue
        self.running[name] += 1
        return item

    @property
    def only_background(self) -> bool:
        """Whether something waits, all of it in the background."""
        return bool(self.queues) and all(name.endswith(BACKGROUND) for name in self.queues)

    def _next(self) -> Iterable[str]:
        """Who may be served next: those in the background only where nobody else waits."""
        return [name for name in self.queues if not name.endswith(BACKGROUND)] or self.queues

    def _running_for_weight(self, name: str) -> float:
        """What an asker would run with one item more, for its weight; none is less than nothing, so nobody waits for good."""
        return (self.running[name] + 1) / self.weights[name] if self.running[name] else 0.0

    @property
    def _all(self) -> int:
        return self.places + self.reserve

    @property
    def in_background(self) -> int:
        """Items of the background that run."""
        return sum(count for name, count in self.running.items() if name.endswith(BACKGROUND))

    def _first_items(self, weight: int) -> int:
        """How many items of an asker count as first ones: of who stands for several askers, as the page does, one of each."""
        return max(1, min(weight // USUAL_WEIGHT, self._all // 2))

    def _lacking(self) -> Counter[str]:
        """How many first items each asker that was here a short while ago has not running."""
        now = self.clock()
        while self.seen and now - self.seen[oldest := next(iter(self.seen))] > REMEMBERED_S:
            del self.seen[oldest]
        firsts = Counter({asker.name: self._first_items(asker.weight) for asker in self.seen})
        return firsts - self.running

    def _may_run(self, name: str, lacking: Counter[str]) -> bool:
        free = self._all - self.running.total()
        is_background = name.endswith(BACKGROUND)
        if self.running[name] < self._first_items(self.weights[name]) and not is_background:
            return free > 0
        if is_background and not self.may_begin(self.in_background, self.places):
            return False
        return free > max(self.reserve, min(lacking.total() - lacking[name], self._all // 2))

    def leave(self, name: str) -> None:
        """Note that an item of this asker runs no longer."""
        self.running[name] -= 1
        self._forget(name)

    def drop(self, name: str, item: Item) -> None:
        """Take out an item that waits no longer."""
        self.queues[name].remove(item)
        self._forget(name)

    def waiting(self, name: str) -> Iterator[Item]:
        """The items of an asker that wait, the newest first."""
        return reversed(self.queues.get(name, deque()))

    def _forget(self, name: str) -> None:
        if not self.queues.get(name):
            self.queues.pop(name, None)
            if not self.running[name]:
                del self.running[name], self.weights[name]
