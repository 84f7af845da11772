"""A card, its models and their clients in simulated time, moved by lingbi.demand.decision alone."""

import random
from dataclasses import dataclass, field

from lingbi.demand.decision import (
    ASLEEP,
    CHECK,
    CHECKED,
    CHECKING,
    DRAINING,
    HOLDING,
    PUT_AWAY,
    READY,
    WAKE,
    WAKING,
    Bounds,
    Member,
    decide,
)

STEP_S, CHECK_S, EXIT_S, LOAD_S, AT_ONCE = 0.1, 0.2, 0.8, 5.0, 8


@dataclass
class Model:
    """One worker: who waits for it (since when), who is answered (until when), and what it does (until when)."""

    name: str
    phase: str = ASLEEP
    until: float = 0.0
    waiting: dict[int, float] = field(default_factory=dict)
    queue: list[int] = field(default_factory=list)
    running: dict[int, float] = field(default_factory=dict)
    used: float = 0.0
    ready: float = 0.0
    loads: int = 0

    def member(self, number: int, now: float) -> Member:
        longest = max((now - since for since in self.waiting.values()), default=0.0)
        inside = len(self.queue) + len(self.running)
        idle_s = 0.0 if inside else now - self.used
        return Member(number, self.name, "0", self.phase, len(self.waiting), longest, inside, idle_s, now - self.ready)


class Card:
    """Models that share a card, and clients that each ask one question after the other."""

    def __init__(self, models: int, bounds: Bounds, seed: int = 0, answer_s: float = 1.0) -> None:
        self.models = [Model(f"model-{number}") for number in range(models)]
        self.bounds, self.random, self.answer_s = bounds, random.Random(seed), answer_s
        self.now, self.asked, self.waits = 0.0, dict[int, float](), list[float]()
        self.answered: list[int] = []  # clients, in the order in which they were answered since the last look

    def ask(self, client: int, number: int) -> None:
        model = self.models[number]
        self.asked[client] = self.now
        if model.phase == READY:
            model.queue.append(client)
        else:
            model.waiting[client] = self.now

    def step(self) -> None:
        self.now += STEP_S
        for model in self.models:
            self._advance(model)
        for order in decide([model.member(number, self.now) for number, model in enumerate(self.models)], self.bounds):
            self._obey(self.models[order.member], order.do)
        holding = [model for model in self.models if model.phase in HOLDING]
        assert len(holding) <= self.bounds.slots, "the card holds more than it has room for"
        assert sum(model.phase in (WAKING, DRAINING) for model in self.models) <= 1, "two swaps at once"

    def _obey(self, model: Model, do: str) -> None:
        before, after, seconds = {
            CHECK: (ASLEEP, CHECKING, CHECK_S),
            WAKE: (CHECKED, WAKING, LOAD_S),
            PUT_AWAY: (READY, DRAINING, EXIT_S),
        }[do]
        assert model.phase == before
        model.phase, model.until = after, self.now + seconds
        model.loads += do == WAKE

    def _advance(self, model: Model) -> None:
        for client, until in list(model.running.items()):
            if until <= self.now:
                del model.running[client]
                model.used = self.now
                self.waits.append(self.now - self.asked[client])
                self.answered.append(client)
        if model.phase in (READY, DRAINING):
            while model.queue and len(model.running) < AT_ONCE:
                model.running[model.queue.pop(0)] = self.now + self.random.uniform(0.2, 1.8) * self.answer_s
        if model.phase == DRAINING and (model.queue or model.running):
            model.until = self.now + EXIT_S
        if model.phase in (CHECKING, WAKING, DRAINING) and model.until <= self.now:
            model.phase = {CHECKING: CHECKED, WAKING: READY, DRAINING: ASLEEP}[model.phase]
            if model.phase == READY:
                model.ready = model.used = self.now
                model.queue += model.waiting
                model.waiting.clear()
