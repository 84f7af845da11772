"""The engine's instances, and the requests that wait for one: those who ask take turns (lingbi/turns.py)."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lingbi.api_errors import Refusal
from lingbi.engine.background import Background
from lingbi.turns import Asker, Turns

LOOK_S = 0.02  # at what waits in the background, whether it may begin by now


@dataclass(eq=False)
class Waiting:
    """A request that waits for an instance; may_be_refused: for the sake of another one."""

    asker: Asker
    place: asyncio.Future[Any]
    may_be_refused: bool


class Places:
    """Instances of an engine. size: how many one asker may have; those beside it are a reserve."""

    def __init__(self, instances: Iterable[Any], size: int, background: Background | None = None) -> None:
        # The instance that answered last is used next: an instance's first answer starts 2 ms later (docs/performance).
        self.free = list(instances)
        self.size = min(size, len(self.free))
        self.background = background or Background()
        self.background.on_change = self._grant
        reserve, may_begin = len(self.free) - self.size, self.background.may_begin
        self.turns: Turns[Waiting] = Turns(self.size, reserve, may_begin=may_begin)
        self._next_look: asyncio.TimerHandle | None = None

    async def wait(self, asker: Asker, may_be_refused: bool) -> Any:
        """An instance, when it is this asker's turn; it must be given back. Raises what refuse_newest is given."""
        waiting = Waiting(asker, asyncio.get_running_loop().create_future(), may_be_refused)
        self.turns.put(asker, waiting)
        self._grant()
        try:
            return await waiting.place
        except asyncio.CancelledError:
            if waiting.place.done() and not waiting.place.cancelled():
                self._unless_refused(waiting)
            elif waiting in self.turns.waiting(asker.name):
                self.turns.drop(asker.name, waiting)
            raise

    def _unless_refused(self, waiting: Waiting) -> None:
        if not waiting.place.exception():
            self.give_back(waiting.place.result(), waiting.asker)

    def give_back(self, instance: Any, asker: Asker) -> None:
        """Pass an instance whose answer has ended to the next request that waits."""
        self.free.append(instance)
        self.turns.leave(asker.name)
        self.background.begun(instance)
        self._grant()

    def _grant(self) -> None:
        while waiting := self.turns.take():
            if waiting.place.done():  # it was cancelled, and its task has not run since
                self.turns.leave(waiting.asker.name)
            else:
                instance = self.free.pop()
                if waiting.asker.is_background:
                    self.background.begin(instance)
                waiting.place.set_result(instance)
        if self.turns.only_background and self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._next_look = None
        self._grant()

    def refuse_newest(self, name: str, refusal: Refusal) -> bool:
        """Have the newest request of this asker that waits, and may be refused, raise the refusal; False: there is none."""
        for waiting in self.turns.waiting(name):
            if waiting.may_be_refused and not waiting.place.done():
                self.turns.drop(name, waiting)
                waiting.place.set_exception(refusal)
                return True
        return False
