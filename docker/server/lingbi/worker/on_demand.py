"""A worker that loads its model when the arbiter says so, serves, and ends when the memory is needed."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lingbi.demand.arbiter import Told, arbiter_socket, is_alive
from lingbi.demand.decision import ASLEEP as STANDS_BY
from lingbi.demand.decision import CHECK, CHECKED, CHECKING, DRAINING, HOLDING, PUT_AWAY, READY, RESTORE, WAKE, WAKING
from lingbi.demand.record import Record
from lingbi.errors import LingbiError
from lingbi.http import readiness as phases
from lingbi.http.readiness import OnDemand
from lingbi.http.waking import Waking
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import TURBOMIND, emptied, look_at
from lingbi.model.host_memory import CpuFit, fit_on_cpu, whole_mib
from lingbi.model.sizing import Fit, fit_on
from lingbi.settings import Settings
from lingbi.vision.tower_ahead import TowerAhead
from lingbi.worker.arbiter_line import ArbiterLine
from lingbi.worker.batches import start_runner
from lingbi.worker.main import Fitted, Worker
from lingbi.worker.phases import bring_up
from lingbi.worker.takeover import SUCCEED, Life
from lingbi.worker.wake_times import parts_of

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds

log = logging.getLogger("lingbi.worker")
LOOK_S = 1.0


class OnDemandWorker(Worker):
    """One process of a succession: stands by, wakes at most once, serves, and leaves."""

    is_left_to_others = is_awaited = True

    def __init__(self, settings: Settings, life: Life) -> None:
        super().__init__(settings, life.restarts)
        self.life, self.sockets = life, [life.listener]
        self.stage = STANDS_BY
        self.record = Record(settings.state_dir / "run" / f"worker-{settings.worker}.wakes")
        self.tower = TowerAhead(settings.state_dir / "models")
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        self.line = ArbiterLine(arbiter_socket(settings.state_dir), self._tell, self._obey)
        self.waking = Waking(self.readiness, self.record, settings.wake_wait_s, self.line.notify)
        self.service.waking = self.waking
        self.on_demand = OnDemand(is_called=lambda: self.waking.waiting > 0, is_elder_there=self._is_elder_there)
        self.readiness.on_demand = self.on_demand
        # A process before this one finishes its requests where nobody can ask it, since this one has the port.
        self.service.metrics.inside.set_function(lambda: self.service.admission.inside + self._is_elder_there())
        self.service.metrics.watch_demand(self.record, lambda: self.on_demand.state(self.readiness.phase))
        if not life.is_first:  # another one has checked the weights: requests may wait at once
            self.on_demand.is_checked = True
            self.readiness.enter(phases.ASLEEP)
        self.asked = self.ready = self.checked = time.monotonic()

    def _is_elder_there(self) -> bool:
        return self.life.elder is not None and is_alive(self.life.elder)

    @property
    def place(self) -> str:
        """Which models share memory with this one."""
        return self.assigned.device or "cpu"

    def _tell(self, heard: int) -> Told:
        """How this worker is."""
        lines = self.service.has_lines and self.service.takes_lines
        if self.stage == CHECKED and not self.waking.waiting and not lines:
            self.stage = STANDS_BY
        admission, now = self.service.admission, time.monotonic()
        is_ready = self.stage == READY
        return Told(
            id=0,
            pid=os.getpid(),
            worker=self.settings.worker,
            model=self.readiness.model,
            place=self.place,
            phase=self.stage,
            heard=heard,
            waiting=self.waking.waiting,
            waited_s=self.waking.waited_s,
            inside=max(admission.inside, int(self.waking.is_awaiting)) if self.stage in HOLDING else 0,
            idle_s=now - max(admission.ended, self.ready) if is_ready else 0.0,
            ready_s=now - self.ready if is_ready else 0.0,
            lines=lines,
        )

    def _obey(self, order: dict[str, Any]) -> None:
        """Do what the arbiter says, if it still holds; what this worker tells next corrects the arbiter where it does not."""
        do = order["do"]
        if do == CHECK and self.stage == STANDS_BY and self.on_demand.is_checked:
            self.stage = CHECKING
            if order["why"] == RESTORE:
                self.waking.call()
            self.orders.put(order)
        elif do == WAKE and self.stage == CHECKED:
            self.stage = WAKING
            self.orders.put(order)
        elif do == PUT_AWAY and self.stage == READY:
            self._leave(order["why"])

    def _leave(self, why: str) -> None:
        """Stop accepting, have the next process take this one's place, finish what is here, and end."""
        log.info("put away (%s): %s requests are finished first", why, self.service.admission.inside)
        self.stage = DRAINING
        self.readiness.enter(phases.LEAVING)
        self.record.count_put_away(why)
        self.server.leave(max(self.settings.drain_timeout_s, self.settings.wake_wait_s))
        os.kill(os.getppid(), SUCCEED)

    def _load(self) -> None:
        try:
            self.server.is_up.wait()
            fitted = self._stand_by()
            self.loop.call_soon_threadsafe(self._begin_line)
            if fitted and self.choice.engine == TURBOMIND:
                self._make_ahead(fitted.folder)
            while (order := self.orders.get())["do"] == CHECK:
                self._check()
            self._wake(order)
        except Exception as error:  # the thread ends here, so report the error and end the process
            self._refuse(error)
            self._fail(error)

    def _stand_by(self) -> Fitted | None:
        """Check the weights, so that requests may wait for them. Raises whatever is wrong in the first process of all; a
        later one, where this returns None, tells it when it is to wake."""
        fitted = None
        if self.life.is_first:
            self.readiness.enter(phases.PREPARING)
        try:
            fitted = self._prepare()
        except LingbiError as error:
            if self.life.is_first:
                raise
            self.readiness.error = str(error)
        if self.life.is_first:
            self.on_demand.is_checked = True
            self.readiness.enter(phases.ASLEEP)
        log.info("asleep: nothing is loaded")
        return fitted

    def _make_ahead(self, folder: ModelFolder) -> None:
        try:
            self.tower.make(folder)
        except Exception:  # whatever it is: the wake loads the tower itself, and then says what is wrong
            log.warning("the vision tower could not be loaded ahead", exc_info=True)

    def _with_more(self, needs: EngineNeeds) -> EngineNeeds:
        return replace(needs, tower=self.tower.take(needs.folder), pins_ahead=False)

    def _begin_line(self) -> None:
        self.line_task = asyncio.ensure_future(self.line.keep())
        self.batches = start_runner(self.service, self.app, self.loop)  # asks lines once the model is loaded

    def _check(self) -> None:
        """Check the weights, and that the model fits, before another model goes for it."""
        self.asked = time.monotonic()
        try:
            self._prepare()
            self.readiness.error = None
            self.stage = CHECKED
        except Exception as error:  # whatever it is: this model stays asleep, and the other one stays loaded
            log.error("the model cannot be loaded: %s", error, exc_info=not isinstance(error, LingbiError))
            self.readiness.error = str(error)
            self._refuse(error)
            self.stage = STANDS_BY
        self.checked = time.monotonic()
        self.line.notify()

    def _refuse(self, error: Exception) -> None:
        self.loop.call_soon_threadsafe(self.waking.refuse, str(error))

    def _wake(self, order: dict[str, Any]) -> None:
        """Load the model, and answer whoever waits."""
        self.on_demand.times.clear()
        began, waited_s = time.monotonic(), self.waking.waited_s
        late = threading.Timer(self.settings.load_timeout_s, self._give_up, ("the model did not become ready in time",))
        late.daemon = True
        late.start()
        fitted = bring_up(self.readiness, self._prepare, self._build, self._probe)
        late.cancel()
        if self.server.deadline is not None:
            return
        self.readiness.enter(phases.READY)
        self.ready = time.monotonic()
        self.stage = READY
        self.loop.call_soon_threadsafe(self.waking.open)
        parts = parts_of(self.on_demand.times, began, waited_s, self.checked - self.asked, order)
        self.record.count_wake(parts, is_swap="after" in order)
        told = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items())
        log.info("ready %.2f s after the first request: %s%s", sum(parts.values()), told, _after(order))
        self.line.notify()
        self._watch(fitted.folder.is_demo)
        asyncio.run_coroutine_threadsafe(self._make_vocabulary(), self.loop)

    async def _make_vocabulary(self) -> None:
        """Make the vocabulary of grammars once no request is here, since that holds the interpreter for a second, unless the
        model is put away by then; a request that needs it first makes it itself."""
        assert self.service.generator is not None
        while self.service.admission.inside:
            await asyncio.sleep(LOOK_S)
        if self.stage == READY:
            await self.service.generator.grammars.warm_up()

    def _fit(self, folder: ModelFolder) -> Fit | CpuFit:
        """On the memory as it is when the model is loaded; before that, as it will be when the others have gone."""
        if self.stage == WAKING:
            return super()._fit(folder)
        device, share_mib = self.assigned.device, self.assigned.memory_mib
        if device is not None:
            return fit_on(folder, emptied([look_at(device)])[0], self.limited)
        return fit_on_cpu(folder, share_mib or whole_mib(), self.settings)


def _after(order: dict[str, Any]) -> str:
    return f"; {order['after']} was put away for it" if "after" in order else ""
