"""The ledger of a worker: what requests use goes into journals, and from there into the accounts' database, once.

One thread tells the journals each second what running requests use. Another counts the journals into the database: in one
transaction it adds what it has read and says up to where that was, so that a kill between both leaves nothing half done.
While the database is away, journals wait on the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database, DatabaseAway, now_in
from lingbi.accounts.entries import Entry, additions
from lingbi.accounts.ledger import counting
from lingbi.accounts.ledger.journal import Journal, entries_of, finish, in_folder, taken_over
from lingbi.accounts.ledger.spool import Spool
from lingbi.accounts.tables import journals

log = logging.getLogger(__name__)
TELL_S, COUNT_S, TIDY_S = 1.0, 1.0, 3600.0
Counted = TypeVar("Counted", Journal, Path)
Charge = Callable[[Connection, Sequence[Entry]], None]


class CountedElsewhere(Exception):
    """Somebody else has counted this part of a journal meanwhile, or an earlier commit was in time after all."""


class Ledger:
    """Counts the journals of a worker, and those that dead ones of the same host left.

    charge: called with the entries as they were read, in the transaction that counts them: for quotas and holds; charged:
    with the same, once they are counted for good; tidy: called each hour, and again soon while it returns that more is to be
    done.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        zone: ZoneInfo,
        host: str = "",
        charge: Charge = lambda connection, entries: None,
        charged: Callable[[Sequence[Entry]], None] = lambda entries: None,
        on_error: Callable[[str], None] = lambda kind: None,
        tidy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.database, self.spool, self.zone, self.host, self.charge = database, spool, zone, host, charge
        self._charged = charged
        self._on_error, self._tidy, self._tidied = on_error, tidy, float("-inf")
        self._is_away = self._is_up_to_date = False
        self._stop = threading.Event()
        self._forgotten: list[str] = []  # journals whose files are removed, and whose rows are still there
        self._threads = [
            threading.Thread(target=self._repeat, args=(spool.tell, TELL_S), name="journal", daemon=True),
            threading.Thread(target=self._repeat, args=(self._count_if_there, COUNT_S), name="ledger", daemon=True),
        ]

    def start(self) -> None:
        """Begin to tell and to count."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 5.0) -> None:
        """Count what is left, for at most so long; what the disk has is counted at the next start otherwise."""
        self._stop.set()
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        if any(thread.is_alive() for thread in self._threads):  # the disk, or the database, hangs
            self._tell_lost([line for _, line in self.spool.rest()])
        else:
            self.count_rest()

    def count_rest(self) -> None:
        """Count what is left, with what only memory holds, and give the journals up; what cannot be counted is logged."""
        self._tried(self.spool.tell)
        rest = self.spool.end_writing()
        for _ in range(2):  # a commit whose answer was lost is found out the second time
            self._tried(self._count_if_there)
        self._tell_lost([line for journal, line in rest if journal.counted < journal.size])
        self.spool.close()

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            log.exception("the ledger's disk failed")
            self._on_error("fault")

    def _tell_lost(self, lines: list[bytes]) -> None:
        for line in lines:
            log.error("usage is lost, since neither the disk nor the database takes it: %s", line.decode().rstrip())
            self._on_error("entry")

    def count(self) -> None:
        """Count all that is on the disk now. Raises DatabaseAway."""
        if not self._is_up_to_date:
            self.database.bring_up_to_date()
            self._is_up_to_date = True
        self.spool.release()
        count = self._end if self.spool.is_over else self._count_all
        for journal in self.spool.journals():
            journal.sync()  # what is counted must not vanish from the disk, or the place up to where it is would be wrong
            self._unless_counted_elsewhere(count, journal)
        own = {journal.file for journal in self.spool.journals()}
        for file in in_folder(self.spool.folder):
            if file not in own:
                self._unless_counted_elsewhere(self._finish, file)
        self._forget()

    @staticmethod
    def _unless_counted_elsewhere(count: Callable[[Counted], None], what: Counted) -> None:
        """Count, and leave it to the next round where somebody else has just counted."""
        try:
            count(what)
        except CountedElsewhere as error:
            log.info("a part of the journal %s is counted already", error)

    def _finish(self, file: Path) -> None:
        """Count a journal to its end and remove it, if its process is gone."""
        with taken_over(file) as journal:
            if journal is None:
                return
            with self.database.read() as connection:  # first: to read all of it is work, and in vain while that is away
                journal.counted = self._position(connection, journal.name)
            self._end(journal)

    def _end(self, journal: Journal) -> None:
        """Count a journal that gets no more lines to its end, and remove it."""
        finish(journal)
        self._count_all(journal)
        self.database.keep()
        journal.file.unlink(missing_ok=True)  # before its row: a file without a row would be counted anew
        self._forgotten.append(journal.name)

    def _count_all(self, journal: Journal) -> None:
        while journal.counted < journal.size:
            journal.counted = self._count_part(journal)

    def _count_part(self, journal: Journal) -> int:
        """Count some lines behind what the database has of a journal; returns the position up to which it then has it."""
        with self.database.begin() as connection:
            begun = self._position(connection, journal.name)
            lines, position = journal.lines(begun)
            if not lines:
                return max(begun, journal.size)
            self._advance(connection, journal.name, begun, position)
            found = list(entries_of(lines, journal.name, self._pass_over))
            added = [addition for entry, told in found for addition in additions(entry, told)]
            counting.add(connection, added, self.zone)
            self.charge(connection, [entry for entry, _ in found])
        self._charged([entry for entry, _ in found])
        journal.counted_lines += len(lines)
        return position

    @staticmethod
    def _position(connection: Connection, name: str) -> int:
        return connection.execute(sa.select(journals.c.position).where(journals.c.name == name)).scalar() or 0

    def _advance(self, connection: Connection, name: str, begun: int, position: int) -> None:
        """Move a journal's position, first of all: it waits for whoever else counts this part, and then finds it moved.

        Raises CountedElsewhere.
        """
        values = {"position": position, "seen_at": now_in(connection)}
        if begun:
            is_there = (journals.c.name == name) & (journals.c.position == begun)
            step: Any = sa.update(journals).where(is_there).values(**values)
        else:
            step = self.database.insert(journals).values(name=name, host=self.host, **values).on_conflict_do_nothing()
        moved = connection.execute(
            step, execution_options={"preserve_rowcount": True}
        )  # of an INSERT it is not kept else
        if moved.rowcount != 1:
            raise CountedElsewhere(name)

    def _forget(self) -> None:
        """Remove the rows of journals that are removed."""
        if self._forgotten:
            with self.database.begin() as connection:
                connection.execute(sa.delete(journals).where(journals.c.name.in_(self._forgotten)))
            self._forgotten = []

    def _pass_over(self, reason: str) -> None:
        log.error("%s", reason)
        self._on_error("entry")

    def _repeat(self, work: Callable[[], None], pause_s: float) -> None:
        said = ""
        while not self._stop.wait(pause_s):
            try:
                work()
                said = ""
            except Exception as error:  # the thread must survive: what it could not do now it does the next time
                if said != str(error):
                    said = str(error)
                    log.exception("the ledger failed; it tries again every %s s", pause_s)
                self._on_error("fault")

    def _count_if_there(self) -> None:
        try:
            self.count()
            if time.monotonic() - self._tidied > TIDY_S and not self._tidy():
                self._tidied = time.monotonic()
        except DatabaseAway as error:
            if not self._is_away:
                log.error("usage waits in %s: %s", self.spool.folder, error)
            self._is_away = True
            self._on_error("database")
            return
        if self._is_away:
            log.warning("the accounts' database answers again; what waited is counted")
        self._is_away = False
