"""How a file's content comes and goes: its row is there before the first byte and until the last one is removed.

So what a worker leaves that is killed meanwhile is found by its row, which expires, and any worker removes it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import batches, files
from lingbi.batch.storage import Writer
from lingbi.batch.store import Store
from lingbi.errors import LingbiError

log = logging.getLogger(__name__)
RENEW_S = 60.0  # an upload says so often that it goes on


class GivenUp(LingbiError):
    """An upload stood still for so long that it was taken for dead."""


@dataclass(frozen=True)
class Room:
    """most_bytes: of the new file; held_bytes: what its owner's other files take, with those that are being uploaded."""

    most_bytes: int
    held_bytes: int


class Incoming:
    """Takes the content of one new file, and says meanwhile that it still comes. Raises OSError, DatabaseAway, GivenUp."""

    def __init__(self, store: Store, owner: str, file_id: str) -> None:
        self.store, self.owner, self.file_id = store, owner, file_id
        self._writer: Writer | None = None
        self._renewed = 0.0  # time.monotonic()

    def begin(self, declared_bytes: int | None = None) -> Room:
        """Note the upload, whose body has so many bytes if that is known, and keep room for its content."""
        rules, database = self.store.rules, self.store.database
        with database.begin() as connection:
            database.lock(connection, f"files of {self.owner}")  # another upload must not count on the same room
            held = files.held_bytes(connection, self.owner)
            most = max(0, min(rules.file_bytes, rules.owner_bytes - held))
            most = most if declared_bytes is None else min(most, declared_bytes)
            files.begin_upload(connection, self.owner, self.file_id, most)
        self._renewed = time.monotonic()
        self._writer = self.store.storage.begin(self.file_id)
        return Room(most, held)

    def write(self, piece: bytes) -> None:
        """Keep a piece."""
        self._renew()
        self._begun.write(piece)

    def finish(self) -> None:
        """Have the content whole where it is kept."""
        self._renew()
        self._begun.finish()

    def keep(self, connection: Connection, life_s: float, **columns: Any) -> RowMapping:
        """Make it a file, which lives so long; returns its row."""
        row = files.end_upload(connection, self.owner, self.file_id, life_s, **columns)
        if row is None:
            raise GivenUp(self.file_id)
        return row

    def discard(self) -> None:
        """Remove what there is of it; where the database is away, a later look of some worker does the rest."""
        with contextlib.suppress(DatabaseAway):
            if self._writer:
                self._writer.discard()
            self.store.storage.remove(self.file_id)
            with self.store.database.begin() as connection:
                files.remove(connection, self.file_id)

    @property
    def _begun(self) -> Writer:
        assert self._writer, "begin() comes first"
        return self._writer

    def _renew(self) -> None:
        now = time.monotonic()
        if now - self._renewed < RENEW_S:
            return
        with contextlib.suppress(DatabaseAway), self.store.database.begin() as connection:
            if not files.renew_upload(connection, self.file_id):
                raise GivenUp(self.file_id)
            self._renewed = now


def remove(store: Store, row: RowMapping) -> None:
    """Forget a file with its content. Its row is hidden first, so that nobody is promised what is gone, and goes last."""
    with store.database.begin() as connection:
        if not files.hide(connection, row):
            return
    if row["kind"] in files.WITH_CONTENT:
        store.storage.remove(row["id"])
    else:
        _remove_results(store, row)
    with store.database.begin() as connection:
        files.remove(connection, row["id"])


def _remove_results(store: Store, row: RowMapping) -> None:
    last, is_any = 0, True
    while is_any:
        with store.database.begin() as connection:
            last = batches.forget_results(connection, row["batch_id"], row["kind"], last)
        is_any = last > 0


def remove_all(store: Store, rows: Iterable[RowMapping], failed: set[str] | None = None) -> None:
    """Forget files with their contents. Raises DatabaseAway.

    A file that the disk or the database does not give up is logged, and is for a later call. failed: the ids of those that
    were logged before, which the caller keeps.
    """
    failed = set() if failed is None else failed
    for row in rows:
        try:
            remove(store, row)
            failed.discard(row["id"])
        except (DatabaseAway, OSError) as error:
            if row["id"] not in failed:
                log.warning("the content of %s could not be removed, and will be later: %s", row["id"], error)
            failed.add(row["id"])
            if isinstance(error, DatabaseAway):
                raise
