"""The keys that a worker knows, in memory, with what each may do: no request waits for a disk or a network to be let in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lingbi.accounts.database import Database, DatabaseAway, SharedClock
from lingbi.accounts.facts import KeyFacts
from lingbi.accounts.key_file import Key, digest, read_key_file, read_keys, stamp_of
from lingbi.accounts.keys.records import Records, look, read_records
from lingbi.accounts.keys.snapshot import read_snapshot, write_snapshot
from lingbi.accounts.keys.takeover import applied, decide, take_over
from lingbi.accounts.opening import folder_of, host_of
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Source:
    """The database of the keys, this host's name in it, and the file with the host's own copy."""

    database: Database
    host: str
    copy: Path

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Source:
        """What a server of these settings has."""
        return cls(database, host_of(settings), folder_of(settings) / "keys.json")


class KeyRing:
    """The keys of the database and of this host's key file, read again when either changes.

    While the database is away, what was last known of it serves, and the key file still counts. A missing or unusable key
    file changes nothing, because a volume that vanishes must not lock anybody out; one without keys was emptied
    deliberately, so none of its keys is let in. source: None where only the file counts.
    """

    def __init__(self, file: Path, source: Source | None = None) -> None:
        self.file, self.source = file, source
        self._stamp, self._lines = stamp_of(file), read_keys(file)
        self._taken: Sequence[Key] | None = None  # the lines that the database last followed
        self._served: Sequence[Key] | None = None  # the lines that are served
        self._is_away = False
        self.clock = SharedClock()  # by which keys end
        self._ends, self._looking = threading.Event(), threading.Lock()
        self.records = read_snapshot(source.copy) if source else Records()
        self.names: dict[str, KeyFacts] = {}
        self.keys: dict[str, KeyFacts] = {}  # by digest
        self.look()

    def start(self) -> None:
        """Look for changes from now on, in a thread of its own."""
        threading.Thread(target=self._look_again, name="keys", daemon=True).start()

    def stop(self) -> None:
        """Look no longer."""
        self._ends.set()

    def find(self, presented: bytes) -> KeyFacts | None:
        """What is known of a presented key, ended or not; None of an unknown one.

        It is looked up by its digest: nobody can tell from the time how much of a guess was right, as no part of a digest
        follows from a part of its key.
        """
        return self.keys.get(digest(presented))

    def account(self, name: str) -> KeyFacts | None:
        """What is known of an account by its name, as of a visitor of the page."""
        return self.names.get(name)

    def look(self) -> None:
        """Take in what has changed since the last look. It may take seconds while the database is away."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        self._read_lines()
        try:
            records = self._read(self.source) if self.source else self.records
            self._note_away(None)
        except (DatabaseAway, ConfigurationError) as fault:
            self._note_away(str(fault))
            records, self._taken = self.records, None
        if records is not self.records or self._served is not self._lines:
            self._serve(records)

    def _serve(self, records: Records) -> None:
        host = self.source.host if self.source else ""
        self.records = applied(records, decide(records, self._lines, host, self.clock.now()))
        self.names, self.keys = self.records.facts(), self.records.by_digest()
        self._served = self._lines

    def _look_again(self) -> None:
        while not self._ends.wait(LOOK_AGAIN_S):
            try:
                self.look()
            except Exception:  # the keys stay as they were; without this thread they would for good
                log.exception("the keys could not be looked for")

    def _read_lines(self) -> None:
        """Read the key file if it has changed."""
        stamp = stamp_of(self.file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            log.error("key file %s is gone; the keys stay as they were until it is back", self.file)
            return
        try:
            self._lines = read_key_file(self.file, may_be_empty=True)
        except ConfigurationError as error:
            log.error("the keys stay as they were: %s", error)
            return
        if self._lines:
            log.info("key file %s was read again: %s keys", self.file, len(self._lines))
        else:
            log.error("key file %s was emptied: none of its keys is let in; scripts/key adds others", self.file)

    def _read(self, source: Source) -> Records:
        """What the database holds, after it has followed the key file."""
        if self._taken is not self._lines:
            source.database.bring_up_to_date()
            records = take_over(source.database, self._lines, source.host)
            self._taken = self._lines
        else:
            with source.database.read() as connection:
                revision, now = look(connection)
                self.clock.note(now)
                if revision == self.records.revision:
                    return self.records
                records = read_records(connection)
        write_snapshot(source.copy, records)
        return records

    def _note_away(self, fault: str | None) -> None:
        if fault and not self._is_away:
            log.error("%s; keys stay as they were until it is back", fault)
        elif not fault and self._is_away:
            log.info("the accounts' database %s answers again", self.source and self.source.database)
        self._is_away = fault is not None
