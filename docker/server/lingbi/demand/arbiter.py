"""The arbiter of one host: hears from its workers what they hold and who waits, and tells them what to do.

It listens on a Unix socket in the state folder; a worker's process keeps one connection, and both sides send JSON, one
object a line. A worker sends `Told` whenever something changes and once a second; it gets orders. The arbiter remembers
nothing that its workers do not tell it, so one that is started anew goes on where the last one ended.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lingbi.demand.decision import (
    ASLEEP,
    CHECK,
    CHECKING,
    DRAINING,
    HOLDING,
    PUT_AWAY,
    READY,
    RESTORE,
    ROOM,
    WAKE,
    WAKING,
    Bounds,
    Member,
    Order,
    decide,
)
from lingbi.files import socket_path

log = logging.getLogger("lingbi.arbiter")
TICK_S = 0.25
END_LOOK_S = 0.05  # while a process that held memory of a card ends
SETTLE_S = 3.0  # for workers to report to an arbiter that was started anew
LINE_BYTES = 1 << 16
FOLLOWS = {CHECK: CHECKING, WAKE: WAKING, PUT_AWAY: DRAINING}


def arbiter_socket(state_dir: Path) -> Path:
    """Where the arbiter of a state folder listens."""
    return socket_path(state_dir, "arbiter")


@dataclass(frozen=True)
class Told(Member):
    """What a worker's process says of itself, with 0 for its id, which the arbiter gives it; heard: the last order that it
    knows of."""

    pid: int = 0
    worker: int = 0
    heard: int = 0

    def member(self, number: int, later_s: float) -> Member:
        """As the decision sees it, so many seconds after it was told."""
        return replace(
            self,
            id=number,
            waited_s=self.waited_s + (later_s if self.waiting else 0.0),
            idle_s=0.0 if self.inside else self.idle_s + later_s,
            ready_s=self.ready_s + later_s,
        )


@dataclass
class Swap:
    """What was put away on a card for whoever is next: the model, and the seconds that its drain and its end took."""

    model: str
    began: float = field(default_factory=time.monotonic)
    drain_s: float = 0.0
    exit_s: float = 0.0


@dataclass
class Known:
    """A connection: what its process told last and when, and how many orders it got. writer: None once it has gone."""

    told: Told
    writer: asyncio.StreamWriter | None
    seen: float = field(default_factory=time.monotonic)
    sent: int = 0


class Arbiter:
    """Keeps the workers' connections. expected: how many workers there are."""

    def __init__(self, bounds: Bounds, expected: int) -> None:
        self.bounds, self.expected = bounds, expected
        self.known: dict[int, Known] = {}
        self.swaps: dict[str, Swap] = {}  # by place, until the next model is told to wake
        self.former: dict[str, str] = {}  # by place: the model that was put away for the one that wakes there
        self.owed: dict[str, str] = {}  # by place: a model that is to come back, since that one could not be loaded
        self.began, self.settled = time.monotonic(), False
        self._count = 0

    async def run(self, file: Path) -> None:
        """Serve until SIGTERM."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # of an arbiter that was killed
        server = await asyncio.start_unix_server(self.talk, file, limit=LINE_BYTES)
        file.chmod(0o600)
        log.info("arbiter of %s worker(s): %s", self.expected, self.bounds)
        while not stopped.is_set():
            self.act()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stopped.wait(), END_LOOK_S if self._ending() else TICK_S)
        server.close()
        file.unlink(missing_ok=True)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One worker's connection, until it ends or says what cannot be understood."""
        self._count += 1
        number = self._count
        try:
            while line := await reader.readline():
                self.hear(number, Told(**json.loads(line)), writer)
        except (ValueError, TypeError, OSError) as error:
            log.error("a worker's connection ends: %r", error)
        finally:
            writer.close()
            self._gone(number)

    def hear(self, number: int, told: Told, writer: asyncio.StreamWriter | None) -> None:
        """Take in what a process says; what it said before it knew of the last order tells nothing of its phase."""
        known = self.known.setdefault(number, Known(told, writer))
        if told.heard < known.sent:
            told = replace(told, phase=known.told.phase)
        if told.phase != known.told.phase:
            log.info("%s (worker %s): %s", told.model, told.worker, told.phase)
        if told.phase == READY:
            self.former.pop(told.place, None)
        known.told, known.seen = told, time.monotonic()
        self.act()

    def _gone(self, number: int) -> None:
        """A connection has ended. Its process may go on to hold memory until it has ended too."""
        known = self.known.get(number)
        if known is None:
            return
        known.writer = None
        if known.told.phase == WAKING and known.told.place in self.former:
            self.owed[known.told.place] = self.former.pop(known.told.place)
        swap = self.swaps.get(known.told.place)
        if swap and known.told.phase == DRAINING:
            swap.drain_s = time.monotonic() - swap.began
        if known.told.phase in HOLDING:
            known.told = replace(known.told, phase=DRAINING)
        else:
            del self.known[number]
        self.act()

    def _ending(self) -> list[int]:
        return [number for number, known in self.known.items() if known.writer is None]

    def act(self) -> None:
        """Give the orders that are due."""
        for number in self._ending():
            told = self.known[number].told
            if not is_alive(told.pid):
                del self.known[number]
                if swap := self.swaps.get(told.place):
                    swap.exit_s = time.monotonic() - swap.began - swap.drain_s
        if not self._is_settled():
            return
        for order in decide(self._members(), self.bounds):
            self._send(order)

    def _members(self) -> list[Member]:
        """All processes. One whose model is to come back counts as waited for."""
        now = time.monotonic()
        members = [known.told.member(number, now - known.seen) for number, known in self.known.items()]
        return [replace(item, waiting=1) if self._is_owed(item) else item for item in members]

    def _is_owed(self, member: Member) -> bool:
        return member.phase == ASLEEP and self.owed.get(member.place) == member.model

    def _is_settled(self) -> bool:
        """Whether all workers have told once what they hold, or have had time to."""
        workers = {known.told.worker for known in self.known.values()}
        if len(workers) >= self.expected or time.monotonic() - self.began >= SETTLE_S:
            self.settled = True
        return self.settled

    def _send(self, order: Order) -> None:
        known = self.known[order.member]
        told = known.told
        known.sent += 1
        message: dict[str, Any] = {"number": known.sent, "do": order.do, "why": order.why}
        if order.do == CHECK and self.owed.get(told.place) == told.model:
            message["why"] = RESTORE
            del self.owed[told.place]
        if order.do == PUT_AWAY and order.why == ROOM:
            self.swaps[told.place] = Swap(told.model)
        if order.do == WAKE and (swap := self.swaps.pop(told.place, None)):
            message |= {"after": swap.model, "drain_s": swap.drain_s, "exit_s": swap.exit_s}
            self.former[told.place] = swap.model
        log.info("%s (worker %s): %s %s", told.model, told.worker, order.do, message["why"])
        known.told = replace(told, phase=FOLLOWS[order.do])
        if known.writer:
            known.writer.write(json.dumps(message).encode() + b"\n")


def is_alive(pid: int) -> bool:
    """Whether a process of this host still runs, or waits for its parent to hear of its end."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
