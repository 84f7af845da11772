"""A ledger's parts as tests make them: requests that run, a database that fails when told to, and what it has counted."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from lingbi.accounts.database import Database, DatabaseAway
from lingbi.accounts.entries import NOTHING, Counts
from lingbi.accounts.ledger.ledger import Ledger
from lingbi.accounts.ledger.spool import Spool
from lingbi.accounts.tables import total_days, total_hours, usage_days, usage_hours, usage_months

TABLES = (usage_hours, usage_days, usage_months, total_hours, total_days)
UTC = ZoneInfo("UTC")
MIB = 1 << 20


@dataclass
class Request:
    """A request as a Record is one to the spool."""

    account: str = "key"
    model: str | None = "model"
    at: float = 1_700_000_000.0
    has: Counts = NOTHING  # its client
    in_all: Counts = field(default=NOTHING)

    def given(self) -> Counts:
        return self.has

    def used(self) -> Counts:
        return self.in_all


class FailingDatabase(Database):
    """A database that is away, or whose commits are: not done, done without an answer, or where the process is killed.

    fault: None, "away", "before", "after", "kill before" or "kill after" a commit; but for the first two, for one commit.
    """

    fault: str | None = None

    @contextlib.contextmanager
    def begin(self):
        fault = self.fault
        if fault == "away":
            raise DatabaseAway("away")
        if fault:
            self.fault = None
        with super().begin() as connection:
            yield connection
            if fault and fault.endswith("before"):
                raise Killed if fault.startswith("kill") else DatabaseAway("before its commit")
        if fault:
            raise Killed if fault.startswith("kill") else DatabaseAway("after its commit")

    @contextlib.contextmanager
    def read(self):
        if self.fault == "away":
            raise DatabaseAway("away")
        with super().read() as connection:
            yield connection


class Killed(BaseException):
    """The process ends here: nothing of it runs any more."""


def ledger_in(folder, database, most_bytes=256 * MIB, zone=UTC, **options) -> Ledger:
    """A worker's ledger, whose threads do not run."""
    return Ledger(database, Spool(folder / "journals", most_bytes), zone, **options)


def kill(ledger: Ledger) -> None:
    """What a kill -9 of its process leaves: the files as they are, and no lock."""
    for journal in ledger.spool.journals():
        journal.close()


def sums(database, table=usage_hours, by=("key", "status")) -> dict:
    """{(key, status): Counts} of a table, without what is nothing."""
    columns = [table.c[name] for name in by]
    counts = [sa.func.sum(table.c[name]) for name in Counts._fields]
    with Database.read(database) as connection:
        rows = connection.execute(sa.select(*columns, *counts).group_by(*columns)).all()
    found = {tuple(row[: len(by)]): Counts(*map(int, row[len(by) :])) for row in rows}
    return {subject: counts for subject, counts in found.items() if counts != NOTHING}


def totals(expected: dict) -> dict:
    """{status: counts} of {(key, status): counts}."""
    found = Counter()
    for (_, status), counts in expected.items():
        found[status,] = (found[status,] or NOTHING).plus(counts)
    return dict(found)
