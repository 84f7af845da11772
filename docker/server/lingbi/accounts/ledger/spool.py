"""The journals that this worker writes, within a bound on the disk, and the requests that run meanwhile.

A request's lines are all in one journal, so that each can be finished for itself. Where the disk has no room, running
requests wait to be told, and what ended is summed in memory until there is room.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lingbi.accounts.entries import GOOD, LONGEST_KEY, LONGEST_MODEL, NOTHING, QUARTER_S, Counts, Entry, written
from lingbi.accounts.ledger.journal import ONE_REQUEST, Journal, begin, begin_in_memory, in_folder

log = logging.getLogger(__name__)
JOURNAL_BYTES = 4 << 20  # a journal ends at this size: one that is counted is removed


class Request(Protocol):
    """What is known of a request; read by another thread while it runs. at: seconds since the epoch."""

    @property
    def at(self) -> float: ...
    @property
    def account(self) -> str: ...
    @property
    def model(self) -> str | None: ...

    def given(self) -> Counts:
        """What its client has of the answer so far, which counts even if this worker dies now."""

    def used(self) -> Counts:
        """What it has used so far."""


class Use:
    """One request's use of its account; `end` must be called before the end of its answer leaves."""

    def __init__(self, spool: Spool, request: Request, name: str) -> None:
        self._spool, self.request, self.name = spool, request, name
        self.journal: Journal | None = None  # the one with its lines, once there is one
        self.told = NOTHING
        self.charged_at: int | None = None  # as an entry has it
        self.is_ended = False

    def run(self) -> None:
        """It has begun to use the engine: from now on it is told each second."""
        self._spool.running.add(self)

    def end(self, status: int) -> None:
        """Write its last entry; only the first call does."""
        self._spool.end(self, status)

    def entry(self, status: int | None, counts: Counts) -> Entry:
        """An entry of this request."""
        request = self.request
        account, model = request.account[:LONGEST_KEY], (request.model or "")[:LONGEST_MODEL]
        return Entry(self.name, round(request.at, 3), account, model, status, counts, self.charged_at)


class Spool:
    """The journals of one worker. `tell` belongs into a thread; the rest may be called from any."""

    def __init__(self, folder: Path, most_bytes: int, on_error: Callable[[str], None] = lambda kind: None) -> None:
        self.folder, self.most_bytes, self._on_error = folder, most_bytes, on_error
        self.running: set[Use] = set()
        self.current: Journal | None = None
        self.ended: list[Journal] = []  # those that get no new requests
        self._lock = threading.Lock()
        self._late: deque[tuple[Journal, bytes]] = deque()  # last lines of requests that have others in a journal
        self._sums: dict[tuple[float, str, str, int | None], Counts] = {}
        self._fault: str | None = None  # why the last line that was tried could not be written
        self._has_room = self.is_over = False
        self._prefix, self._numbers = uuid.uuid4().hex[:8], itertools.count(1)
        self._renew()

    def open(self, request: Request) -> Use:
        """The use of a request that has an account."""
        return Use(self, request, f"{self._prefix}-{next(self._numbers)}")

    def end(self, use: Use, status: int) -> None:
        """Write a request's last entry: what it used in all, less what was told."""
        with self._lock:
            if use.is_ended:
                return
            use.is_ended = True
            self.running.discard(use)
            entry = use.entry(status, use.request.used().plus(ONE_REQUEST).minus(use.told))
            self._put(use.journal, entry, NOTHING if status == GOOD else use.told)

    def tell(self) -> None:
        """Write what running requests have used since the last time, and have the disk keep all of it."""
        with self._lock:
            self._renew()
            self._catch_up()
        for use in list(self.running):
            with self._lock:
                self._tell(use)
        for journal in self.journals():
            journal.sync()

    def journals(self) -> list[Journal]:
        """Those that this worker still writes to."""
        return [*self.ended, *([self.current] if self.current else [])]

    def release(self) -> None:
        """Close the journals that get no more lines; called by whoever reads them, so that nobody does meanwhile."""
        with self._lock:
            done = [journal for journal in self.ended if not journal.running]
            self.ended = [journal for journal in self.ended if journal.running]
        for journal in done:
            journal.close()

    @property
    def waiting(self) -> int:
        """Entries that are not counted yet, as far as this worker has written them."""
        lines = sum(journal.written_lines - journal.counted_lines for journal in self.journals())
        return lines + len(self._late) + len(self._sums)

    def rest(self) -> list[tuple[Journal | None, bytes]]:
        """The lines that wait in memory, each with the journal that it belongs to, if there is one."""
        sums = [written(Entry("", *subject, counts)) for subject, counts in list(self._sums.items())]
        return [*self._late, *((self.current, line) for line in sums)]

    def end_writing(self) -> list[tuple[Journal, bytes]]:
        """Have the journals hold the lines that wait in memory, and return these; from now on nothing is written."""
        with self._lock:
            self.is_over, self._has_room = True, False
            if self._sums and not self.current:
                self.current = begin_in_memory(self.folder)
            rest = [(journal, line) for journal, line in self.rest() if journal]
            self._late.clear()
            self._sums.clear()
            for journal, line in rest:
                journal.hold(line)
        return rest

    def close(self) -> None:
        """Give all journals up: another process, or the next start, finishes them."""
        for journal in self.journals():
            journal.close()
        self.current, self.ended = None, []

    def _put(self, journal: Journal | None, entry: Entry, told: Counts) -> None:
        line = written(entry, told)
        if self._append(journal or self.current, line):
            if journal:
                journal.running -= 1
        elif journal:
            self._late.append((journal, line))
        else:
            sums_of = (entry.at // QUARTER_S * QUARTER_S, entry.key, entry.model, entry.status)
            self._sums[sums_of] = self._sums.get(sums_of, NOTHING).plus(entry.counts)

    def _tell(self, use: Use) -> None:
        given = use.request.given()
        journal = use.journal or self.current
        if use.is_ended or (use.journal and given == use.told):
            return
        if self._append(journal, written(use.entry(None, given.minus(use.told)))):
            use.told = given
            if not use.journal and journal:
                use.journal = journal
                journal.running += 1

    def _append(self, journal: Journal | None, lines: bytes) -> bool:
        """Whether it could be written."""
        if not self._has_room or not journal:
            return False
        try:
            journal.append(lines)
        except OSError as error:
            self._fail(str(error))
            return False
        if self._fault:
            log.warning("usage is written to %s again", self.folder)
            self._fault = None
        return True

    def _catch_up(self) -> None:
        """Write what waited in memory."""
        while self._late and self._append(*self._late[0]):
            self._late.popleft()[0].running -= 1
        for (at, key, model, status), counts in list(self._sums.items()):
            if not self._append(self.current, written(Entry("", at, key, model, status, counts))):
                return
            del self._sums[at, key, model, status]

    def _renew(self) -> None:
        """Look whether there is room, and begin a journal where one is due."""
        try:
            held = sum(file.stat().st_size for file in in_folder(self.folder))
            if held > self.most_bytes:
                raise OSError(
                    f"the journals in {self.folder} take {held >> 20} MiB, and LINGBI_LEDGER_SPOOL_MIB allows "
                    f"{self.most_bytes >> 20}; is the accounts' database away?"
                )
            if self.current is None or self.current.size >= JOURNAL_BYTES:
                begun = begin(self.folder)
                if self.current:
                    self.ended.append(self.current)
                self.current = begun
        except FileNotFoundError:  # another worker has just finished one: the next look comes in a second
            return
        except OSError as error:
            self._fail(str(error))
            return
        self._has_room = True  # whether the disk has, too, the next line shows

    def _fail(self, reason: str) -> None:
        if not self._fault:
            log.error("usage cannot be written and is summed in memory, which a crash would lose: %s", reason)
            self._on_error("disk")
        self._fault, self._has_room = reason, False
