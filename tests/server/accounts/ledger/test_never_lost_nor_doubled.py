"""Random requests, kills, cuts of the database, full disks and jumps of the clock: each entry is counted once."""

import shutil
import tempfile
from pathlib import Path

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from lingbi.accounts.database import DatabaseAway, parse_url
from lingbi.accounts.entries import NOTHING, Counts
from lingbi.accounts.ledger import spool as spool_module
from lingbi.accounts.ledger.journal import LOST, ONE_REQUEST, in_folder
from lingbi.accounts.tables import journals, total_days, total_hours, usage_days, usage_hours, usage_months
from tests.server.accounts.ledger.parts import TABLES, FailingDatabase, Killed, Request, kill, ledger_in, sums, totals

MEMORY = "/dev/shm"  # a disk would take ten times as long, most of it for what no process can see
WORKERS = 2
COUNTS = st.builds(Counts, st.just(0), *[st.integers(0, 1000)] * 5)
KEYS, STATUSES = ("a", "b", "ui/李"), (200, 429, 499, 500)
worker = st.integers(0, WORKERS - 1)


class Life(RuleBasedStateMachine):
    """Two workers of a host and their database. expected: what must be counted in the end, by key and status."""

    url = ""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if Path(MEMORY).is_dir() else None))
        self.database = FailingDatabase(self.url or parse_url(f"sqlite:///{self.folder}/accounts.db"))
        self.database.bring_up_to_date()
        self.clear()
        self.expected, self.running, self.now = {}, [[] for _ in range(WORKERS)], 1_700_000_000.0
        self.ledgers = [ledger_in(self.folder, self.database) for _ in range(WORKERS)]

    def clear(self):
        """An empty database."""

    def expect(self, key: str, status: int, counts: Counts):
        self.expected[key, status] = self.expected.get((key, status), NOTHING).plus(counts)

    @rule(number=worker, key=st.sampled_from(KEYS))
    def open(self, number, key):
        use = self.ledgers[number].spool.open(Request(key, at=self.now))
        use.run()
        self.running[number].append(use)

    @rule(number=worker, which=st.integers(0, 9), more=COUNTS, is_given=st.booleans())
    def go_on(self, number, which, more, is_given):
        if self.running[number]:
            request = self.running[number][which % len(self.running[number])].request
            request.in_all = request.in_all.plus(more)
            if is_given:
                request.has = request.in_all

    @rule(number=worker, which=st.integers(0, 9), status=st.sampled_from(STATUSES))
    def end(self, number, which, status):
        if self.running[number]:
            use = self.running[number].pop(which % len(self.running[number]))
            use.end(status)
            self.expect(use.request.account, status, use.request.in_all.plus(ONE_REQUEST))

    @rule(number=worker, key=st.sampled_from(KEYS))
    def refuse(self, number, key):
        self.ledgers[number].spool.open(Request(key, at=self.now)).end(429)
        self.expect(key, 429, ONE_REQUEST)

    @rule(number=worker)
    def tell(self, number):
        self.ledgers[number].spool.tell()

    @rule(number=worker, fault=st.sampled_from([None, None, "before", "after", "kill before", "kill after"]))
    def count(self, number, fault):
        if self.database.fault != "away":
            self.database.fault = fault
        try:
            self.ledgers[number].count()
        except DatabaseAway:
            pass
        except Killed:
            self.kill(number)
        if self.database.fault != "away":
            self.database.fault = None

    @rule(is_away=st.booleans())
    def cut_database(self, is_away):
        self.database.fault = "away" if is_away else None

    @rule(number=worker, half=st.sampled_from([b"", b'["x', b'["x",1,"a","m",200,1,0,0,0,0,0]', b"\0\0\0"]))
    def kill(self, number, half=b""):
        """A kill, perhaps in the middle of a line; what was told stays, and its requests were lost. What waited in memory for
        a full disk dies too, so the disk gets room first."""
        ledger = self.ledgers[number]
        self.have_room(number)
        if ledger.spool.current and half:
            with ledger.spool.current.file.open("ab") as file:
                file.write(half)
        self.expect_lost(number)
        kill(ledger)
        self.ledgers[number] = ledger_in(self.folder, self.database)

    @rule(number=worker, fault=st.sampled_from([None, "before", "after"]))
    def stop(self, number, fault):
        """An orderly restart, on a full disk too; what waits in memory needs the disk or the database, so one of them is there."""
        if self.database.fault == "away":
            self.have_room(number)
        else:
            self.database.fault = fault
        self.ledgers[number].spool.tell()
        self.expect_lost(number)
        self.ledgers[number].count_rest()
        if self.database.fault != "away":
            self.database.fault = None
        self.ledgers[number] = ledger_in(self.folder, self.database)

    def expect_lost(self, number):
        """What runs is lost with its worker, but for what was told of it."""
        for use in self.running[number]:
            if use.journal:
                self.expect(use.request.account, LOST, use.told.plus(ONE_REQUEST))
        self.running[number] = []

    @rule(number=worker)
    def fill_disk(self, number):
        self.ledgers[number].spool.most_bytes = -1
        self.ledgers[number].spool.tell()

    @rule(number=worker)
    def have_room(self, number):
        self.ledgers[number].spool.most_bytes = 1 << 30
        self.ledgers[number].spool.tell()

    @rule(number=worker)
    def begin_journal(self, number):
        """As if it had its size."""
        before, spool_module.JOURNAL_BYTES = spool_module.JOURNAL_BYTES, 0
        try:
            self.ledgers[number].spool.tell()
        finally:
            spool_module.JOURNAL_BYTES = before

    @rule(hours=st.integers(-800, 800))
    def set_clock(self, hours):
        self.now = max(self.now + hours * 3600, 0.0)

    def teardown(self):
        if not hasattr(self, "ledgers"):
            return
        self.database.fault = None
        for number in range(WORKERS):
            self.kill(number)
        for ledger in self.ledgers:
            for _ in range(3):  # a commit that came in time after all is found out, and left to the next round
                ledger.count()
        try:
            self.judge()
        finally:
            for ledger in self.ledgers:
                kill(ledger)
            self.database.engine.dispose()
            shutil.rmtree(self.folder)

    def judge(self):
        expected = {subject: counts for subject, counts in self.expected.items() if counts != NOTHING}
        for table in (usage_hours, usage_days, usage_months):
            assert sums(self.database, table) == expected, table.name
        for table in (total_hours, total_days):
            assert sums(self.database, table, ("status",)) == totals(expected), table.name
        assert len(in_folder(self.folder / "journals")) == WORKERS  # those of dead workers are gone


def test_nothing_is_lost_or_doubled():
    run_state_machine_as_test(Life, settings=settings(max_examples=25, stateful_step_count=40, deadline=None))


def test_nothing_is_lost_or_doubled_on_postgresql(postgres):
    class OnPostgres(Life):
        url = postgres.url

        def clear(self):
            with self.database.begin() as connection:
                for table in (*TABLES, journals):
                    connection.execute(sa.delete(table))

    run_state_machine_as_test(OnPostgres, settings=settings(max_examples=6, stateful_step_count=25, deadline=None))
