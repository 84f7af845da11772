"""Where the content of stored files is: in a folder, or in the database where several hosts share that and no folder.

Both give a file that is read and sought in like any other, so that a line is read without what stands before it.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import BinaryIO, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database
from lingbi.batch.tables import file_parts

PART_BYTES = 1 << 20
AT_ONCE = 64  # parts that one statement removes, which must end soon


class Writer(Protocol):
    """Takes the content of one new file; it is there as a whole once `finish` returns, and not at all before."""

    def write(self, piece: bytes) -> None: ...

    def finish(self) -> None: ...

    def discard(self) -> None: ...


class Storage(Protocol):
    """The contents of files, by their ids."""

    def begin(self, file_id: str) -> Writer: ...

    def open(self, file_id: str) -> BinaryIO:
        """The content, to read and seek in. Raises FileNotFoundError."""
        ...

    def remove(self, file_id: str) -> None:
        """Remove the content, or what there is of one that was never finished."""
        ...


class Folder:
    """Contents as files of a folder, which several hosts may have mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, file_id: str) -> Writer:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _FolderWriter(self.path / file_id, self._unfinished(file_id))

    def _unfinished(self, file_id: str) -> Path:
        return self.path / f"{file_id}.part"

    def open(self, file_id: str) -> BinaryIO:
        return (self.path / file_id).open("rb")

    def remove(self, file_id: str) -> None:
        for path in (self._unfinished(file_id), self.path / file_id):
            path.unlink(missing_ok=True)


class _FolderWriter:
    def __init__(self, path: Path, beside: Path) -> None:
        self._path, self._beside = path, beside
        self._stream = os.fdopen(os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def write(self, piece: bytes) -> None:
        self._stream.write(piece)

    def finish(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._beside.replace(self._path)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # a full disk does not take what the stream still holds, which is not wanted
            self._stream.close()
        self._beside.unlink(missing_ok=True)


class Parts:
    """Contents as rows of the database, a mebibyte each. connection: of the transaction that all new ones belong to."""

    def __init__(self, database: Database, connection: Connection | None = None) -> None:
        self.database, self._connection = database, connection

    def begin(self, file_id: str) -> Writer:
        return _PartsWriter(self, file_id)

    def open(self, file_id: str) -> BinaryIO:
        with self.database.read() as connection:
            last = connection.execute(
                sa.select(file_parts.c.part, sa.func.length(file_parts.c.content))
                .where(file_parts.c.file_id == file_id)
                .order_by(file_parts.c.part.desc())
                .limit(1)
            ).first()
        if last is None:
            raise FileNotFoundError(file_id)
        return io.BufferedReader(_PartsReader(self, file_id, last[0] * PART_BYTES + last[1]), PART_BYTES)

    def part(self, file_id: str, part: int) -> bytes:
        """One part's content."""
        asked = sa.select(file_parts.c.content).where(file_parts.c.file_id == file_id, file_parts.c.part == part)
        with self.database.read() as connection:
            return bytes(connection.execute(asked).scalar_one())

    def add(self, file_id: str, part: int, content: bytes) -> None:
        """Store one part."""
        ours = contextlib.nullcontext(self._connection) if self._connection else self.database.begin()
        with ours as connection:
            connection.execute(sa.insert(file_parts).values(file_id=file_id, part=part, content=content))

    def remove(self, file_id: str) -> None:
        while self._remove_some(file_id):
            pass

    def _remove_some(self, file_id: str) -> bool:
        """Remove the last parts, in a transaction of their own; whether there were any."""
        mine = file_parts.c.file_id == file_id
        with self.database.begin() as connection:
            last = connection.execute(sa.select(sa.func.max(file_parts.c.part)).where(mine)).scalar()
            if last is not None:
                connection.execute(sa.delete(file_parts).where(mine, file_parts.c.part > last - AT_ONCE))
        return last is not None


class _PartsWriter:
    def __init__(self, parts: Parts, file_id: str) -> None:
        self._parts, self._file_id, self._count, self._held = parts, file_id, 0, bytearray()

    def write(self, piece: bytes) -> None:
        self._held += piece
        while len(self._held) >= PART_BYTES:
            self._store(bytes(self._held[:PART_BYTES]))
            del self._held[:PART_BYTES]

    def _store(self, content: bytes) -> None:
        self._parts.add(self._file_id, self._count, content)
        self._count += 1

    def finish(self) -> None:
        if self._held or not self._count:
            self._store(bytes(self._held))

    def discard(self) -> None:
        self._parts.remove(self._file_id)


class _PartsReader(io.RawIOBase):
    def __init__(self, parts: Parts, file_id: str, size: int) -> None:
        super().__init__()
        self._parts, self._file_id, self._size, self._place = parts, file_id, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._place >= self._size or not len(view):
            return 0
        part, offset = divmod(self._place, PART_BYTES)
        content = self._parts.part(self._file_id, part)[offset : offset + len(view)]
        view[: len(content)] = content
        self._place += len(content)
        return len(content)
