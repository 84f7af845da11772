"""The bodies that lines are asked with: out of their input file, with the pictures that they name by file id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import BinaryIO

from sqlalchemy.engine import RowMapping

from lingbi.batch import files
from lingbi.batch.claims import Claimed
from lingbi.batch.store import Store
from lingbi.errors import LingbiError
from lingbi.http.admission.bodies import HeldBody
from lingbi.http.batch.asking import body_of, size_of

InThread = Callable[..., Awaitable[bytes | int]]  # does what its first argument says with the others


class Unaskable(LingbiError):
    """A line that cannot be asked. code: as in the errors file."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LineBodies:
    """Makes the bodies of a model's lines, which may name it by an alias; what is too large for a request is not read."""

    def __init__(self, store: Store, model: str) -> None:
        self.store, self.model = store, model

    async def make(self, claimed: Claimed, held: HeldBody, in_thread: InThread) -> bytes:
        """The body of a line's request, which is read once all bodies leave room for it: the line, then its files.

        Raises Unaskable, DatabaseAway, OSError.
        """
        found: bytes | int = min(claimed.size, self.store.rules.line_bytes)
        while isinstance(found, int):
            held.end()
            await held.wait(found)
            found = await in_thread(self._read, claimed, found)
        return found

    def _read(self, claimed: Claimed, room_bytes: int) -> bytes | int:
        """The body or, of one that may be larger than the room, how many bytes it may have."""
        try:
            line = self._line(claimed)
            size = size_of(line, partial(self._bytes, claimed.owner))
            self._check(size)
            if size > room_bytes:
                return size
            return body_of(line, self.model, partial(self._content, claimed.owner))
        except LookupError as error:
            raise Unaskable("file_not_found", str(error.args[0])) from None
        except (ValueError, RecursionError) as error:
            raise Unaskable("invalid_line", f"the line cannot be read: {error}"[:300]) from None

    def _check(self, size: int) -> None:
        most = self.store.rules.line_bytes
        if size > most:
            raise Unaskable(
                "line_too_large",
                f"the line has {size} bytes with the files that it names, and a request may have {most}; "
                "send smaller or fewer pictures",
            )

    def _line(self, claimed: Claimed) -> bytes:
        with self._opened(claimed.input_file_id) as file:
            file.seek(claimed.place)
            return file.read(claimed.size).strip()

    def _opened(self, file_id: str) -> BinaryIO:
        """A stored file's content. Raises LookupError where it is gone."""
        try:
            return self.store.storage.open(file_id)
        except FileNotFoundError:
            raise LookupError(f"the content of {file_id} is gone; upload it again") from None

    def _bytes(self, owner: str, file_id: str) -> int:
        return int(self._found(owner, file_id)["bytes"])

    def _content(self, owner: str, file_id: str) -> bytes:
        self._found(owner, file_id)
        with self._opened(file_id) as file:
            return file.read()

    def _found(self, owner: str, file_id: str) -> RowMapping:
        with self.store.database.read() as connection:
            row = files.find(connection, owner, file_id)
        if row is None or row["kind"] != files.STORED:
            raise LookupError(f"this key has no file {file_id[:64]!r}")
        return row
