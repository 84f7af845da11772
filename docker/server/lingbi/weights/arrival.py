"""A file that is arriving: its bytes in place, a journal of the blocks that are there, its parts and its hash.

The file has its final size from the first byte on, so parts are not merged and need no second copy.
A block is journaled after its bytes were handed to the kernel, so a kill loses less than one block
of each connection. If the machine crashes, the journal may be ahead of the bytes; the hash finds out.
"""

import hashlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.hub import Aborted
from lingbi.weights.lockfile import Entry

BLOCK_BYTES = 1 << 18
PART_BYTES = 1 << 25  # the largest range of one request
JOURNAL_SUFFIX = ".blocks"
MARGIN_BYTES = 64 << 20  # for journals, lock and folders
HASH_BYTES = 1 << 20
STOP_CHECK_S = 0.5


class Partial:
    """One arriving file of known size; several threads may write different parts of it."""

    def __init__(self, path: Path, size: int):
        self.path, self.size = path, size
        self.journal_path = _journal_path(path)
        self.blocks = -(-size // BLOCK_BYTES)
        if not path.exists() or path.stat().st_size != size:
            self.journal_path.unlink(missing_ok=True)
        self._data = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._data, size)
        self._journal = os.open(self.journal_path, os.O_RDWR | os.O_CREAT, 0o644)
        self.arrived = bytearray(os.pread(self._journal, self.blocks, 0).ljust(self.blocks, b"\0"))
        self.arrived_bytes = self._bytes_of(self.arrived.count(1), bool(self.blocks and self.arrived[-1]))
        self._front = 0

    def _bytes_of(self, blocks: int, has_last: bool) -> int:
        return blocks * BLOCK_BYTES - (self.blocks * BLOCK_BYTES - self.size if has_last else 0)

    @property
    def is_complete(self) -> bool:
        return self.arrived_bytes == self.size

    def front(self) -> int:
        """How many bytes are there without a gap, counted from the start of the file."""
        gap = self.arrived.find(0, self._front)
        self._front = self.blocks if gap < 0 else gap
        return min(self._front * BLOCK_BYTES, self.size)

    def missing_parts(self) -> list[tuple[int, int]]:
        """Byte ranges (start, end) to request: each at most PART_BYTES long, none with a block that has arrived."""
        parts, block, per_part = [], self.arrived.find(0), PART_BYTES // BLOCK_BYTES
        while block >= 0:
            stop = self.arrived.find(1, block, block + per_part)
            stop = min(block + per_part, self.blocks) if stop < 0 else stop
            parts.append((block * BLOCK_BYTES, min(stop * BLOCK_BYTES, self.size)))
            block = self.arrived.find(0, stop)
        return parts

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes at an offset. Raises OSError, for example when the disk is full."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._data, view, offset)
            view, offset = view[count:], offset + count

    def mark(self, first: int, last: int) -> None:
        """Journal the blocks that lie entirely within the bytes from first up to last (exclusive)."""
        begin = -(-first // BLOCK_BYTES)
        end = self.blocks if last >= self.size else last // BLOCK_BYTES
        if end > begin:
            os.pwrite(self._journal, b"\1" * (end - begin), begin)
            new = end - begin - self.arrived.count(1, begin, end)
            is_last_new = end == self.blocks and not self.arrived[-1]
            self.arrived[begin:end] = b"\1" * (end - begin)
            self.arrived_bytes += self._bytes_of(new, is_last_new)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from an offset; returns how many bytes there were."""
        return os.preadv(self._data, [buffer], offset)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._journal)

    def discard(self) -> None:
        """Delete the file and its journal, because the bytes were wrong."""
        self.path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def move_to(self, target: Path) -> None:
        """Move the complete file to its new name and delete the journal."""
        os.replace(self.path, target)
        self.journal_path.unlink(missing_ok=True)


@dataclass
class Part:
    """A byte range that one connection fetches; at: the next byte to fetch, which a retry does not reset."""

    start: int
    end: int
    at: int = field(init=False)

    def __post_init__(self) -> None:
        self.at = self.start


class Arrival:
    """A file's entry, its partial file, its parts and its hash. Several threads may receive parts at once."""

    def __init__(self, entry: Entry, partial: Partial, stop: threading.Event):
        self.entry, self.partial = entry, partial
        self.parts = deque(Part(start, end) for start, end in partial.missing_parts())
        self.in_flight = 0
        self.landed = threading.Event()  # set when no connection writes to the file any more
        self._streamer: Part | None = None  # the part whose connection fetches the whole file if the hub ignores ranges
        self._changed = threading.Condition()
        self._stop = stop

    @property
    def is_large(self) -> bool:
        """Whether hashing it deserves a thread of its own, beside those that receive."""
        return self.entry.size > PART_BYTES

    def wants(self, part: Part) -> bool:
        """Whether a part still has bytes to request."""
        if self._streamer is None:
            return part.at < part.end
        return self._streamer is part and not self.partial.is_complete

    def claim_stream(self, part: Part) -> bool:
        """Whether this part's connection fetches the whole file: the first part that asks does."""
        with self._changed:
            self._streamer = self._streamer or part
            return self._streamer is part

    def receive(self, part: Part, data: bytes | memoryview) -> int:
        """Write the next bytes of a part; returns how many bytes of new, whole blocks were journaled."""
        begin = part.at - part.at % BLOCK_BYTES
        self.partial.write(part.at, data)
        part.at += len(data)
        end = part.at if part.at == self.partial.size else part.at - part.at % BLOCK_BYTES
        if end <= begin:
            return 0
        with self._changed:
            before = self.partial.arrived_bytes
            self.partial.mark(begin, end)
            self._changed.notify_all()
            return self.partial.arrived_bytes - before

    def digest(self) -> str:
        """SHA-256 in hex, hashed from the front as bytes arrive and read back from the file.

        Returns when all bytes have arrived. Raises Aborted if the fetch is aborted before that.
        """
        digest, hashed, buffer = hashlib.sha256(), 0, memoryview(bytearray(HASH_BYTES))
        while hashed < self.partial.size and not self._stop.is_set():
            ready = min(HASH_BYTES, self._wait_front(hashed) - hashed)
            count = self.partial.read_into(buffer[:ready], hashed)
            digest.update(buffer[:count])
            hashed += count
        if hashed < self.partial.size:
            raise Aborted(f"aborted while {self.entry.path} was being fetched")
        return digest.hexdigest()

    def _wait_front(self, hashed: int) -> int:
        with self._changed:
            while (front := self.partial.front()) <= hashed and not self._stop.is_set():
                self._changed.wait(STOP_CHECK_S)
            return max(front, hashed)


def check_space(folder: WeightsFolder, entries: Iterable[Entry]) -> None:
    """Raise ConfigurationError, with both numbers, if the bytes of these entries that are missing do not fit."""
    needed = max(sum(entry.size - arrived_bytes(folder, entry) for entry in entries), 0) + MARGIN_BYTES
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        raise ConfigurationError(
            f"{folder.path} needs {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free there; "
            "free up space (`scripts/weights list` shows the size of each model), or pass another folder"
        )


def arrived_bytes(folder: WeightsFolder, entry: Entry) -> int:
    """How many bytes of an entry an earlier fetch left on the disk."""
    partial = folder.partial / entry.sha256
    journal = _journal_path(partial)
    if not partial.exists() or not journal.exists():
        return 0
    return min(journal.read_bytes().count(1) * BLOCK_BYTES, entry.size)


def _journal_path(partial: Path) -> Path:
    return partial.with_name(partial.name + JOURNAL_SUFFIX)
