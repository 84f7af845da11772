"""Which model is loaded next on a card, and which is put away for it. Everything here is pure.

A card has `slots` for models that are loaded. At most one of its models comes or goes at a time, and a model is put away
only once the weights of the next one have been checked. A model that is loaded stays until it has had no request for
QUIET_S or, while it has work and another one is waited for, for `stay_s`; then it finishes what runs. UNUSED_QUIET_S is
enough where the next model was first waited for after the last answer of this one: it may be the same client that asks.
Whoever asks again and again with short pauses has work all the same, since the next model waits through its answers. So:

- Every request that waits when its model becomes ready is answered before the model goes.
- With m models for one slot a request waits for at most m - 1 other models' loads, stays and drains, and its own model's
  load, because the model that has been waited for longest is next.
- Lines of batches wake a model only while nobody waits, on a slot that is free or from which nothing was asked of for
  BACKGROUND_S. A model that has lines left is not idle, and goes for whoever waits as if it had none.
- So clients that change between m models with every question, n questions each, cause at most m n + 1 loads, however many
  they are.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

ASLEEP, CHECKING, CHECKED = "asleep", "checking", "checked"  # hold no memory of the card
WAKING, READY, DRAINING = "waking", "ready", "draining"  # hold some
HOLDING = frozenset({WAKING, READY, DRAINING})
CHECK, WAKE, PUT_AWAY = "check", "wake", "put away"
ROOM, IDLE, RESTORE = "room", "idle", "restore"
QUIET_S = 1.0
UNUSED_QUIET_S = 0.3
BACKGROUND_S = 30.0  # without a request, before a model without lines goes for one with some


@dataclass(frozen=True)
class Member:
    """One process of a worker, as it describes itself.

    place: the card, or "cpu"; waiting: requests that wait for the model; waited_s: how long the first of them has; inside:
    requests that run, or 1 for a client that was told to come again and may still come; idle_s: seconds without a request;
    ready_s: seconds since the model became ready; lines: whether lines of batches wait for the model, or run.
    """

    id: int
    model: str
    place: str
    phase: str
    waiting: int = 0
    waited_s: float = 0.0
    inside: int = 0
    idle_s: float = 0.0
    ready_s: float = 0.0
    lines: bool = False


@dataclass(frozen=True)
class Bounds:
    """slots: models of a card that may be loaded at once; stay_s: how long one with work stays while another is waited for;
    idle_s: how long one without work stays while none is, 0: for good."""

    slots: int
    stay_s: float
    idle_s: float


@dataclass(frozen=True)
class Order:
    """What a member is to do, and why."""

    member: int
    do: str
    why: str = ""


def decide(members: Iterable[Member], bounds: Bounds) -> list[Order]:
    """The orders that are due now: at most one a card."""
    places: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        places[member.place].append(member)
    orders = (_on_place(found, bounds) for found in places.values())
    return [order for order in orders if order]


def _on_place(members: list[Member], bounds: Bounds) -> Order | None:
    if any(member.phase in (CHECKING, WAKING, DRAINING) for member in members):
        return None
    ready = [member for member in members if member.phase == READY]
    following = _next(members)
    if following is None:
        return _for_lines(members, ready, bounds) or _idle(ready, bounds)
    if following.phase == ASLEEP:
        return Order(following.id, CHECK)
    if len(ready) < bounds.slots:
        return Order(following.id, WAKE)
    leaving = [member for member in ready if _may_go(member, following, bounds)]
    return Order(max(leaving, key=_unused).id, PUT_AWAY, ROOM) if leaving else None


def _next(members: list[Member]) -> Member | None:
    """The model that has been waited for longest; one whose weights were checked for that keeps its turn."""
    wanted = [member for member in members if member.waiting and member.phase in (ASLEEP, CHECKED)]
    return max(wanted, key=lambda member: (member.phase == CHECKED, member.waited_s), default=None)


def _for_lines(members: list[Member], ready: list[Member], bounds: Bounds) -> Order | None:
    """What wakes a model whose lines wait, while nobody waits for any."""
    wanted = [member for member in members if member.lines and member.phase in (ASLEEP, CHECKED)]
    if not wanted:
        return None
    following = max(wanted, key=lambda member: member.phase == CHECKED)
    unused = [item for item in ready if not item.lines and not item.inside and item.idle_s >= BACKGROUND_S]
    if len(ready) >= bounds.slots and not unused:
        return None
    if following.phase == ASLEEP:
        return Order(following.id, CHECK)
    if len(ready) < bounds.slots:
        return Order(following.id, WAKE)
    return Order(max(unused, key=_unused).id, PUT_AWAY, ROOM)


def _idle(ready: list[Member], bounds: Bounds) -> Order | None:
    over = [
        member
        for member in ready
        if bounds.idle_s and not member.inside and not member.lines and member.idle_s >= bounds.idle_s
    ]
    return Order(max(over, key=_unused).id, PUT_AWAY, IDLE) if over else None


def _may_go(member: Member, following: Member, bounds: Bounds) -> bool:
    quiet_s = UNUSED_QUIET_S if following.waited_s <= member.idle_s else QUIET_S
    return member.ready_s >= bounds.stay_s or (not member.inside and member.idle_s >= quiet_s)


def _unused(member: Member) -> tuple[bool, float]:
    """By which the least recently used comes last."""
    return not member.inside, member.idle_s
