"""Removes what has ended, beside all else that a worker does: lines go on however long the database takes for a file."""

from __future__ import annotations

import itertools
import logging
from concurrent.futures import Future, ThreadPoolExecutor

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import files
from lingbi.batch.owned import clear_some
from lingbi.batch.store import Store
from lingbi.batch.uploads import remove_all

log = logging.getLogger(__name__)
CLEARINGS = 5  # transactions at a time, of a few lines each


class Removal:
    """One worker's part in it, in a thread of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.under_way: Future[None] | None = None
        self.is_ending = False  # begin with no further file
        self._thread = ThreadPoolExecutor(1, "batch-removal")
        self._failed: set[str] = set()  # ids of files

    def go_on(self) -> None:
        """Remove some of what there is, unless that is still being done."""
        if self.under_way is None or self.under_way.done():
            self.under_way = self._thread.submit(self._remove)

    def _remove(self) -> None:
        try:
            with self.store.database.read() as connection:
                ended = files.ended(connection)
            ended.sort(key=lambda row: row["id"] in self._failed)  # a file that fails each time must hold no other up
            remove_all(self.store, itertools.takewhile(lambda _: not self.is_ending, ended), self._failed)
            for _ in range(CLEARINGS):
                if self.is_ending or not clear_some(self.store.database):
                    break
        except DatabaseAway as error:
            log.info("what has ended is removed later: %s", error)
        except Exception:  # this thread must survive whatever one file does to it
            log.exception("what has ended could not be removed, and will be later")
