"""Lets requests of keys with limits begin, or refuses them: asked of the database in a thread, or while that is away of
what this worker knows."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from lingbi.accounts.database import DatabaseAway
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas.decision import Asked, Standing, Verdict, decide_unseen
from lingbi.accounts.quotas.holds import BEAT_S, Holds
from lingbi.api_errors import QuotasAway
from lingbi.http.admission.quota_answers import headers_of, refusal_of

if TYPE_CHECKING:
    from lingbi.accounts.quotas.use import Use

log = logging.getLogger(__name__)
WhenAway = Literal["local", "open", "closed"]
Answer = TypeVar("Answer")
PATIENCE_S = 2.0  # a request waits no longer for the database, and the next ones not at all
LOOK_AGAIN_S = 1.0  # whether it is back
KNOWN_S = 2.0  # after which it is asked again whether a key still has nothing left
RETRY_AFTER_S = 5
AWAY_HEADERS = {"Retry-After": str(RETRY_AFTER_S)}


class LetIn(NamedTuple):
    """A request that may begin. headers: for its answer; charged_at: by which its use counts, as accounts/entries.py says."""

    headers: dict[str, str]
    charged_at: int | None = None


class Spent(NamedTuple):
    """How the limits of a key stood that had nothing left; asked_at: by time.monotonic()."""

    limits: tuple[Limit, ...]
    standings: tuple[Standing, ...]
    asked_at: float


class Quotas:
    """One worker's quotas. A key without limits costs nothing here.

    is_away: whether the database did not answer when it was last asked.
    """

    def __init__(self, holds: Holds, when_away: WhenAway) -> None:
        self.holds, self.when_away = holds, when_away
        self.is_away = False
        self._asking = ThreadPoolExecutor(1, "quotas")
        self._is_over = threading.Event()
        self._spent: dict[str, Spent] = {}  # by the key's name
        self._looks: set[asyncio.Task[object]] = set()

    def begin(self) -> None:
        """Say from now on that this worker lives."""
        threading.Thread(target=self._beat, name="quotas-beat", daemon=True).start()

    def stop(self) -> None:
        """Say it no longer."""
        self._is_over.set()

    def refuse_spent(self, key: KeyFacts) -> None:
        """Refuse a request whose body is still to be read, of a key that has nothing left. Raises OverQuota.

        What the database said counts while the period lasts. Since `erase` gives a key all back, it is asked again beside
        these requests.
        """
        known = self._spent.get(key.name)
        if known is None or known.limits != key.limits or self.is_away:
            return
        now = self.holds.clock.now()
        verdict = decide_unseen(known.standings, now)
        if verdict.denial is None:
            del self._spent[key.name]
            return
        if time.monotonic() - known.asked_at > KNOWN_S:
            self._spent[key.name] = known._replace(asked_at=time.monotonic())
            look = asyncio.create_task(self.standings(key))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        raise refusal_of(verdict, verdict.denial, now, self.holds.zone)

    async def admit(self, request: str, key: KeyFacts, asked: Asked) -> LetIn:
        """Let a request begin, with its id. Raises OverQuota and QuotasAway."""
        if not key.limits:
            return LetIn({})
        if not self.is_away:
            given_up = threading.Event()
            try:
                verdict, now = await self._in_turn(self.holds.take, request, key, asked, given_up)
                self._note(key, verdict.standings, now)
                return self._told(verdict, now)
            except (DatabaseAway, asyncio.TimeoutError) as error:
                self._note_away(error)
            finally:
                given_up.set()  # the thread may still be asking, though nobody waits for it
        return self._admit_alone(request, key, asked)

    async def standings(self, key: KeyFacts) -> tuple[Standing, ...]:
        """How a key's limits stand."""
        if key.limits and not self.is_away:
            try:
                standings = await self._in_turn(self.holds.standings, key)
                self._note(key, standings, self.holds.clock.now())
                return standings
            except (DatabaseAway, asyncio.TimeoutError) as error:
                self._note_away(error)
        return self.holds.own.standings(key, self.holds.clock.now())

    def end(self, request: str, use: Use) -> None:
        """Note what a request has used, now that it has ended."""
        self.holds.own.end(request, use)

    def _note(self, key: KeyFacts, standings: tuple[Standing, ...], now: float) -> None:
        self._spent.pop(key.name, None)
        if decide_unseen(standings, now).denial:
            self._spent[key.name] = Spent(key.limits, standings, time.monotonic())

    def _admit_alone(self, request: str, key: KeyFacts, asked: Asked) -> LetIn:
        if self.when_away == "closed":
            raise QuotasAway(
                "whether this key has anything left cannot be asked now, because the database of keys and usage does not "
                f"answer; try again in {RETRY_AFTER_S} s",
                headers=AWAY_HEADERS,
            )
        if self.when_away == "open":
            return LetIn({})
        now = self.holds.clock.now()
        return self._told(self.holds.take_alone(request, key, asked, now), now)

    def _told(self, verdict: Verdict, now: float) -> LetIn:
        if verdict.denial:
            raise refusal_of(verdict, verdict.denial, now, self.holds.zone)
        return LetIn(headers_of(verdict.standings, now, verdict), int(now))

    async def _in_turn(self, ask: Callable[..., Answer], *arguments: Any) -> Answer:
        future = asyncio.get_running_loop().run_in_executor(self._asking, ask, *arguments)
        return await asyncio.wait_for(future, PATIENCE_S)

    def _note_away(self, error: Exception) -> None:
        reason = str(error) or f"no answer within {PATIENCE_S:g} s"
        log.error("quotas go on without the database (LINGBI_QUOTA_WHEN_AWAY=%s): %s", self.when_away, reason)
        self.is_away = True
        self.holds.is_unsure = True

    def _beat(self) -> None:
        while not self._is_over.wait(LOOK_AGAIN_S if self.is_away else BEAT_S):
            try:
                self._asking.submit(self.holds.beat).result()
            except DatabaseAway:
                continue
            except Exception:  # this thread must go on: without its word, other workers forget this one's holds
                log.exception("holds were not renewed")
                continue
            if self.is_away:
                self.is_away = False
                log.info("quotas are asked of the database again")
