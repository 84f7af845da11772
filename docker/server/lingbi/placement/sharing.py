"""Puts several models' workers on cards, and divides the memory that they share there. Everything here is pure.

A worker's need is the least memory with which its model can be served (sizing.least_mib, host_memory.least_on_cpu). What
a card has beyond the needs of its workers holds KV cache, divided so that each model has room for equally many sessions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

MOST_NAMED = 3  # of the sets of models that would fit


@dataclass(frozen=True)
class Need:
    """What one worker takes. model: its name for people; mib: the least memory; session_bytes: KV cache of a session."""

    model: str
    mib: int
    session_bytes: int


@dataclass
class Card:
    """A card while workers are put on it. room_mib: what they may take of it together."""

    room_mib: int
    needs: list[Need] = field(default_factory=list)

    @property
    def left_mib(self) -> int:
        return self.room_mib - sum(need.mib for need in self.needs)

    def takes(self, need: Need) -> bool:
        """Whether a worker has room here. A second worker of a model on its card would only divide the cache."""
        return need.mib <= self.left_mib and need.model not in [other.model for other in self.needs]


def put_on_cards(needs: Sequence[Need], rooms_mib: Sequence[int]) -> list[int] | None:
    """The number of each worker's card, or None where they do not all fit.

    The worker with the largest need comes first, to the card with the fewest workers, and of these to the one with the
    most room. Where that leaves a worker without a place, each goes where it fits most closely instead.
    """
    return _put(needs, rooms_mib, _emptiest) or _put(needs, rooms_mib, _closest)


def _emptiest(card: Card) -> tuple[int, int]:
    return len(card.needs), -card.left_mib


def _closest(card: Card) -> tuple[int, int]:
    return card.left_mib, 0


def _put(needs: Sequence[Need], rooms_mib: Sequence[int], order: Callable[[Card], tuple[int, int]]) -> list[int] | None:
    cards = [Card(room) for room in rooms_mib]
    chosen = [0] * len(needs)
    for worker in sorted(range(len(needs)), key=lambda worker: -needs[worker].mib):
        fitting = [number for number, card in enumerate(cards) if card.takes(needs[worker])]
        if not fitting:
            return None
        chosen[worker] = min(fitting, key=lambda number: order(cards[number]))
        cards[chosen[worker]].needs.append(needs[worker])
    return chosen


def shares_mib(needs: Sequence[Need], room_mib: int) -> list[int]:
    """The memory that each worker on a card may take: its need, and of what is left a part by the size of its sessions."""
    left, sessions = room_mib - sum(need.mib for need in needs), sum(need.session_bytes for need in needs)
    return [need.mib + left * need.session_bytes // sessions for need in needs]


def would_fit(models: Sequence[Need], rooms_mib: Sequence[int]) -> list[tuple[str, ...]]:
    """The largest sets of these models that fit with one worker each, at most MOST_NAMED; empty where none does."""
    for count in range(len(models), 0, -1):
        sets = [found for found in combinations(models, count) if put_on_cards(found, rooms_mib)]
        if sets:
            return [tuple(need.model for need in found) for found in sets[:MOST_NAMED]]
    return []


def only_once(needs: Iterable[Need]) -> list[Need]:
    """One worker of each model."""
    return list({need.model: need for need in needs}.values())
