"""What running requests of limited keys may still use: told to all workers, so that together they keep to a limit.

A row says what one request may take at most; it is made in the transaction that admits the request, and goes in the one
that counts its last entry (use.py). A worker says every few seconds that it lives, and rows of one that does not
count no longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lingbi.accounts.database import SharedClock, now_of
from lingbi.accounts.facts import PERIODS, KeyFacts, Limit
from lingbi.accounts.periods import Span, span_of
from lingbi.accounts.quotas.decision import Asked, Standing, Verdict, decide, subject_of
from lingbi.accounts.quotas.own_use import OwnUse, Taken
from lingbi.accounts.quotas.use import RELEASE
from lingbi.accounts.tables import holds, quota_use
from lingbi.errors import LingbiError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from lingbi.accounts.database import Database

BEAT_S = 5.0
STALE_S = 30.0  # without a word of its worker, a hold counts no longer
CLEAN_S = 600.0  # and is deleted
COUNTED_S = 60.0  # an ended request is counted by then, if the database is there at all
HELD = "held"  # in the place of a period

_subjects: sa.BindParameter[list[str]] = sa.bindparam("subjects", expanding=True)
# One statement, so that what is counted meanwhile is seen either as used or as held.
READ = sa.union_all(
    sa.select(
        quota_use.c.subject,
        quota_use.c.period,
        quota_use.c.requests,
        quota_use.c.tokens,
        quota_use.c.images,
        sa.literal(0).label("beyond"),
    ).where(
        quota_use.c.subject.in_(_subjects),
        sa.or_(
            *(
                sa.and_(quota_use.c.period == period, quota_use.c.period_start == sa.bindparam(period))
                for period in PERIODS
            )
        ),
    ),
    sa.select(
        holds.c.subject,
        sa.literal(HELD),
        sa.func.count(),
        sa.func.sum(sa.case((holds.c.is_over, 0), else_=holds.c.tokens)),
        sa.func.sum(holds.c.images),
        sa.func.sum(sa.case((sa.and_(holds.c.is_over, holds.c.worker == sa.bindparam("worker")), 1), else_=0)),
    )
    .where(holds.c.subject.in_(_subjects), holds.c.seen_at > sa.bindparam("alive_since"))
    .group_by(holds.c.subject),
)
OWN = sa.select(holds.c.request).where(holds.c.worker == sa.bindparam("me")).order_by(holds.c.request, holds.c.subject)
SEEN = sa.update(holds).where(holds.c.worker == sa.bindparam("me")).values(seen_at=sa.bindparam("now"))
STALE = sa.delete(holds).where(holds.c.seen_at < sa.bindparam("before"))


class GivenUp(LingbiError):
    """Nobody waits any more for whether this request may begin."""


class Holds:
    """A worker's way to the holds of all. Methods that wait for the database are called by one thread, in turn.

    worker: unlike every other's, and every earlier one's; own: what this worker knows by itself.
    """

    def __init__(self, database: Database, worker: str, zone: tzinfo) -> None:
        self.database, self.worker, self.zone = database, worker, zone
        self.own = OwnUse(zone)
        self.is_unsure = False  # whether rows may be there of which this worker does not know
        self.clock = SharedClock()

    def take(
        self, request: str, key: KeyFacts, asked: Asked, given_up: threading.Event | None = None
    ) -> tuple[Verdict, float]:
        """Let a request begin, with its id, if it may; with the database's time. Raises DatabaseAway.

        given_up: set once nobody waits for this any more, so that nothing stays held. Raises GivenUp.
        """
        try:
            with self.database.begin() as connection:
                now = self.clock.note(self._alone(connection, key))
                standings = self._standings(connection, key, now)
                verdict = decide(key, standings, asked, now)
                if verdict.denial is None:
                    self._insert(connection, request, key, verdict, now)
                if given_up and given_up.is_set():
                    raise GivenUp(request)
        except Exception:
            self.is_unsure = True
            raise
        self.own.read(key, standings, now)
        if verdict.denial is None and not self.own.begin(request, key, verdict, now, given_up):
            self.is_unsure = True  # its rows are there, and the next beat deletes what this worker does not know
            raise GivenUp(request)
        return verdict, now

    def take_alone(self, request: str, key: KeyFacts, asked: Asked, now: float) -> Verdict:
        """Decide without the database, by what this worker knows; any thread may call it."""
        verdict = decide(key, self.own.standings(key, now), asked, now)
        if verdict.denial is None:
            self.own.begin(request, key, verdict, now)
        return verdict

    def standings(self, key: KeyFacts) -> tuple[Standing, ...]:
        """How each limit of a key stands now. Raises DatabaseAway."""
        with self.database.read() as connection:
            return self._standings(connection, key, now_of(connection))

    def beat(self) -> None:
        """Say that this worker lives, and clear away what is over. Raises DatabaseAway."""
        if not self.own.taken and not self.is_unsure:
            return
        taken = dict(self.own.taken)
        with self.database.begin() as connection:
            now = self.clock.read(connection)
            there = set(connection.execute(OWN.with_for_update(), {"me": self.worker}).scalars())
            gone = lost(taken, there, time.monotonic())
            if gone:
                connection.execute(RELEASE, {"of": sorted(gone)})
            connection.execute(SEEN, {"me": self.worker, "now": now})
            connection.execute(STALE, {"before": now - CLEAN_S})
        self.own.drop(set(taken) - (there - gone))
        self.is_unsure = False

    def _alone(self, connection: Connection, key: KeyFacts) -> float:
        """Wait until no other worker decides about this key or its group; returns the database's time."""
        if self.database.is_sqlite:  # a transaction that writes is alone already
            return now_of(connection)
        subjects = sorted(
            {subject_of(limit, key) for limit in key.limits}
        )  # in one order, so that none waits for another
        found = connection.execute(
            lock_of(len(subjects)), {f"s{place}": subject for place, subject in enumerate(subjects)}
        )
        return float(found.one().now)

    def _standings(self, connection: Connection, key: KeyFacts, now: float) -> tuple[Standing, ...]:
        subjects = {subject_of(limit, key) for limit in key.limits}
        spans = {period: span_of(period, now, self.zone) for period in PERIODS}
        values: dict[str, Any] = {period: span.start for period, span in spans.items()}
        values |= {"subjects": sorted(subjects), "worker": self.worker, "alive_since": now - STALE_S}
        rows = {(row.subject, row.period): row for row in connection.execute(READ, values)}
        return tuple(standing_of(limit, key, spans[limit.period], rows) for limit in key.limits)

    def _insert(self, connection: Connection, request: str, key: KeyFacts, verdict: Verdict, now: float) -> None:
        row = {"request": request, "worker": self.worker, "seen_at": now}
        row |= {"tokens": verdict.asked.tokens, "images": verdict.asked.images}
        subjects = sorted({subject_of(limit, key) for limit in key.limits})
        rows = [row | {"subject": subject, "is_over": subject in verdict.beyond} for subject in subjects]
        connection.execute(sa.insert(holds), rows)


@lru_cache
def lock_of(subjects: int) -> sa.TextClause:
    """The statement that waits for so many subjects, s0 first, and then tells PostgreSQL's time."""
    locks = (f"pg_advisory_xact_lock(hashtextextended(:s{place}, 0))" for place in range(subjects))
    return sa.text(f"SELECT {', '.join(locks)}, extract(epoch FROM clock_timestamp()) AS now")


def standing_of(limit: Limit, key: KeyFacts, span: Span, rows: Mapping[tuple[str, str], Any]) -> Standing:
    """How a limit stands by the rows of READ, by subject and period."""
    subject = subject_of(limit, key)
    used, held = rows.get((subject, limit.period)), rows.get((subject, HELD))
    return Standing(
        limit,
        span.end,
        int(getattr(used, limit.measure)) if used else 0,
        int(getattr(held, limit.measure)) if held else 0,
        bool(held and held.beyond),
    )


def lost(taken: dict[str, Taken], there: set[str], now: float) -> set[str]:
    """The rows of a worker that nobody will delete.

    Those that it does not know are of a transaction whose end it never learned; those of requests that ended long ago
    were counted in a sum, as where a disk is full.
    """

    def is_lost(request: str) -> bool:
        known = taken.get(request)
        return known is None or (known.use is not None and now - known.ended_at > COUNTED_S)

    return {request for request in there if is_lost(request)}
