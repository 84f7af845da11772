"""Asks the lines of batches while a worker has room for them, and takes batches from one status to the next.

Every worker runs one. They share the work through the database alone: a line is taken by one, and its result is written
only by the one that still has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.engine import RowMapping
from starlette.types import ASGIApp

from lingbi.accounts.database import DatabaseAway, SharedClock
from lingbi.accounts.entries import GOOD
from lingbi.batch import batches, claims
from lingbi.batch.claims import Claimed, Result
from lingbi.batch.lines import Bounds
from lingbi.batch.reading import read
from lingbi.batch.states import next_status
from lingbi.batch.store import Store
from lingbi.http.admission.bodies import HeldBody
from lingbi.http.batch.asking import ask
from lingbi.http.batch.line_bodies import LineBodies, Unaskable
from lingbi.http.batch.removal import Removal
from lingbi.http.metrics import ANSWERED, FAILED
from lingbi.http.service import Service

log = logging.getLogger(__name__)
LOOK_S, IDLE_LOOK_S, SIGN_S = 0.5, 2.0, 10.0
LATE_S = 1.5 * SIGN_S  # since this worker was last seen: it was halted, or without the database
AHEAD = 4  # lines that wait beside those that may run, so that their pictures are ready
AGAIN_S, LONGEST_WAIT_S = 2.0, 60.0
EXPIRED = ("batch_expired", "the batch expired before this line was asked")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Names:
    """Models by their names in the API. ours: those of this installation, loaded or not; aliases: {alias: model}."""

    ours: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)


NO_NAMES = Names()


class Runner:
    """One worker's part in all batches. worker: a name that no other worker has, nor had."""

    def __init__(self, service: Service, app: ASGIApp, store: Store, worker: str, names: Names = NO_NAMES) -> None:
        self.service, self.app, self.store, self.worker, self.names = service, app, store, worker, names
        self.model, self.bodies = service.readiness.model, LineBodies(store, service.readiness.model)
        self.working = ThreadPoolExecutor(2, "batches")  # statements, and lines out of their files
        self.reading = ThreadPoolExecutor(1, "batch-input")
        self.removal = Removal(store)
        self.tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()
        service.look_at_batches, service.running_lines = self.changed.set, lambda: len(self.tasks)
        service.metrics.batch_lines_running.set_function(lambda: len(self.tasks))
        self.being_read: set[str] = set()  # batches whose input this worker reads
        self.not_before: dict[str, float] = {}  # of owners whose lines must wait: time.monotonic()
        self.signed, self.frees_from = -math.inf, 0.0  # time.monotonic()
        self.clock = SharedClock()  # by which keys and batches end
        self.has_work = self.is_ending = False

    async def run(self) -> None:
        """Look again and again, until the worker drains; then what runs is given back."""
        self.service.background.on_begin = self.changed.set
        try:
            while self.service.takes_lines:
                self.changed.clear()
                await self._look_once()
                wait_s = LOOK_S if self.has_work else IDLE_LOOK_S
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), wait_s)
        finally:
            self.is_ending = self.removal.is_ending = True
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self._in_thread(self._sign_off)

    async def _look_once(self) -> None:
        try:
            await self._in_thread(self._keep_house)
            if self.has_work and self.service.generator and self.service.readiness.is_ready:
                await self._take_lines()
        except DatabaseAway as error:
            log.warning("batches wait: %s", error)
        except Exception:  # this loop must survive whatever one batch does to it
            log.exception("batches: this look failed; the next one follows")

    async def _in_thread(self, work: Callable[..., Done], *arguments: object) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self.working, work, *arguments)

    # What follows runs in a thread.

    def _keep_house(self) -> None:
        """Say that this worker is alive, and move on what can be moved on."""
        database = self.store.database
        if time.monotonic() - self.signed >= SIGN_S:
            self._sign_on()
            self.removal.go_on()
        with database.read() as connection:
            open_ones, by_status = batches.open_ones(connection), batches.by_status(connection)
            now = self.clock.read(connection)
        self.service.metrics.tell_batches(by_status, batches.lines_left(open_ones))
        self.has_work = any(batch["status"] == "in_progress" for batch in open_ones)
        if self.service.waking:
            self.service.has_lines = self.has_work and self._has_lines()
        for batch in open_ones:
            self._move_on(batch, now)

    def _sign_on(self) -> None:
        """Say that this worker is alive, and free the lines of those that are not.

        After a time without the database it frees none for a while: the others were as silent, and may be about to come back.
        So does one that has just begun, which does not know how it was before.
        """
        database, now = self.store.database, time.monotonic()
        if now - self.signed > LATE_S:
            self.frees_from = now + claims.LOST_S
        try:
            with database.begin() as connection:
                claims.sign_on(connection, database, self.worker, self.model)
                if now >= self.frees_from:
                    claims.free_lost(connection)
        except DatabaseAway:
            self.frees_from = time.monotonic() + claims.LOST_S
            raise
        self.signed = time.monotonic()

    def _has_lines(self) -> bool:
        with self.store.database.read() as connection:
            return claims.any_left(connection, self.model)

    def _move_on(self, batch: RowMapping, now: float) -> None:
        is_expired = now >= batch["expires_at"]
        if batch["status"] == "validating" and not is_expired:
            self._have_read(batch)
            return
        with self.store.database.begin() as connection:
            status = next_status(batch, is_expired, claims.running(connection, batch["id"]) > 0)
            if status == "expired" and claims.end_waiting(connection, self.store.database, batch["id"], *EXPIRED):
                batches.note_expiry(connection, batch["id"])
                return  # the next look ends some more
            if status and batches.end(connection, batch, status, self.store.rules.life_s):
                log.info("batch %s is %s", batch["id"], status)

    def _have_read(self, batch: RowMapping) -> None:
        if batch["id"] in self.being_read:
            return
        with self.store.database.begin() as connection:
            is_others = batch["worker"] != self.worker and batch["worker"] in claims.alive(connection)
            if not batches.take_reading(connection, batch, self.worker, is_others):
                return
        self.being_read.add(batch["id"])
        self.reading.submit(self._read, batch)

    def _read(self, batch: RowMapping) -> None:
        rules = self.store.rules
        bounds = Bounds(batch["endpoint"], rules.lines, rules.line_bytes, self.names.aliases)
        try:
            read(self.store.database, self.store.storage, batch, self.worker, bounds, self.names.ours)
        except (DatabaseAway, OSError) as error:
            log.warning("the input of batch %s could not be read, and will be anew: %s", batch["id"], error)
        except Exception:  # this thread must survive whatever one batch does to it
            log.exception("the input of batch %s could not be read, and will be anew", batch["id"])
        finally:
            self.being_read.discard(batch["id"])

    # What follows runs on the event loop.

    async def _take_lines(self) -> None:
        room = self._room()
        if room <= 0:
            return
        for claimed in await self._in_thread(self._claim, room):
            task = asyncio.create_task(self._answer(claimed))
            self.tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.changed.set()

    def _room(self) -> int:
        """How many lines more may be taken."""
        generator = self.service.generator
        assert generator
        places, begun = generator.places, generator.places.turns.in_background
        may_run = places.size if self.service.background.is_alone else begun
        return may_run + AHEAD - len(self.tasks)

    def _claim(self, count: int) -> list[Claimed]:
        database = self.store.database
        now = time.monotonic()
        waiting = {owner for owner, until in self.not_before.items() if until > now}
        with database.begin() as connection:
            return claims.claim(connection, database, self.worker, self.model, count, waiting)

    async def _answer(self, claimed: Claimed) -> None:
        """Ask one line, and write what came of it; a line that cannot be asked now waits again, and its owner's others with it."""
        result = None
        try:
            result = await self._asked(claimed)
        except (DatabaseAway, OSError) as error:
            log.warning("line %s of %s waits: %s", claimed.line, claimed.batch_id, error)
            self._wait(claimed.owner)
        except Exception:  # the runner must survive whatever one line does to it
            log.exception("line %s of %s failed, and waits", claimed.line, claimed.batch_id)
            self._wait(claimed.owner)
        finally:
            await asyncio.shield(self._in_thread(self._write, claimed, result))

    async def _asked(self, claimed: Claimed) -> Result | None:
        account = self.service.keys.account(claimed.owner)
        if account is None or account.has_ended(self.clock.now()):
            return claims.unasked(claimed.custom_id, "key_ended", f"the key {claimed.owner} has ended")
        held = HeldBody(self.service.body_room, self.service.admission.asker(account).in_background)
        try:
            body = await self.bodies.make(claimed, held, self._in_thread)
            told = await ask(self.app, account, claimed, body, held)
        except Unaskable as error:
            return claims.unasked(claimed.custom_id, error.code, str(error))
        finally:
            held.end()
        if told.must_wait:
            self._wait(claimed.owner, told.retry_after_s)
            return None
        return claims.answered(claimed, told.request_id, told.status, told.body)

    def _wait(self, owner: str, retry_after_s: float = 0.0) -> None:
        wait_s = min(max(retry_after_s, AGAIN_S), LONGEST_WAIT_S)
        self.not_before[owner] = time.monotonic() + wait_s

    def _write(self, claimed: Claimed, result: Result | None) -> None:
        """Write a result, or give the line back; tried until the database takes it, or this worker ends."""
        while True:
            try:
                with self.store.database.begin() as connection:
                    if result is None:
                        claims.give_back(connection, self.worker, claimed)
                        is_written = False
                    else:
                        is_written = claims.finish(connection, self.worker, claimed, result)
                self._tell(claimed, result, is_written)
                return
            except DatabaseAway as error:
                log.warning("the result of a batch's line waits: %s", error)
                if self.is_ending:
                    return  # the line waits again when this worker is taken for dead
                time.sleep(AGAIN_S)

    def _tell(self, claimed: Claimed, result: Result | None, is_written: bool) -> None:
        if result and is_written:
            self.service.metrics.batch_lines.labels(ANSWERED if result.status_code == GOOD else FAILED).inc()
        elif result:
            log.warning("line %s of %s has another worker now, or none", claimed.line, claimed.batch_id)

    def _sign_off(self) -> None:
        try:
            with self.store.database.begin() as connection:
                claims.sign_off(connection, self.worker)
        except DatabaseAway as error:
            log.warning("batches: this worker could not sign off: %s", error)
