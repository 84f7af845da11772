"""One file on its way: the parts still to be asked for, and the hash that follows its front."""

import hashlib
import os
import shutil
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.hub import Stopped
from lingbi.weights.lockfile import Entry

BLOCK_BYTES = 1 << 18
PART_BYTES = 1 << 25  # asked for in one request
JOURNAL_SUFFIX = ".blocks"
MARGIN_BYTES = 64 << 20  # journals, lock, folders
HASH_BYTES = 1 << 20
STOP_CHECK_S = 0.5


class Partial:
    """One arriving file of known size; several threads may write different parts of it."""

    def __init__(self, path: Path, size: int):
        self.path, self.size = path, size
        self.journal_path = path.with_name(path.name + JOURNAL_SUFFIX)
        self.blocks = -(-size // BLOCK_BYTES)
        if not path.exists() or path.stat().st_size != size:
            self.journal_path.unlink(missing_ok=True)
        self._data = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._data, size)
        self._journal = os.open(self.journal_path, os.O_RDWR | os.O_CREAT, 0o644)
        self.arrived = bytearray(os.pread(self._journal, self.blocks, 0).ljust(self.blocks, b"\0"))
        self.arrived_bytes = self._bytes_of(self.arrived.count(1), self.blocks and self.arrived[-1])
        self._front = 0

    def _bytes_of(self, blocks: int, has_last: bool) -> int:
        return blocks * BLOCK_BYTES - (self.blocks * BLOCK_BYTES - self.size if has_last else 0)

    @property
    def is_complete(self) -> bool:
        return self.arrived_bytes == self.size

    def front(self) -> int:
        """Bytes that are there without a gap from the beginning."""
        gap = self.arrived.find(0, self._front)
        self._front = self.blocks if gap < 0 else gap
        return min(self._front * BLOCK_BYTES, self.size)

    def missing_parts(self) -> list:
        """(start, end) byte ranges to ask for, each at most PART_BYTES, none with arrived blocks."""
        parts, block, per_part = [], self.arrived.find(0), PART_BYTES // BLOCK_BYTES
        while block >= 0:
            stop = self.arrived.find(1, block, block + per_part)
            stop = min(block + per_part, self.blocks) if stop < 0 else stop
            parts.append((block * BLOCK_BYTES, min(stop * BLOCK_BYTES, self.size)))
            block = self.arrived.find(0, stop)
        return parts

    def write(self, offset: int, data) -> None:
        """Write bytes at an offset. Raises OSError, disk full among them."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._data, view, offset)
            view, offset = view[count:], offset + count

    def mark(self, first: int, last: int) -> None:
        """Journal the blocks that lie wholly within bytes first to last (exclusive)."""
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
        """Forget everything: the bytes were wrong."""
        self.path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def move_to(self, target: Path) -> None:
        """Put the complete file under another name, and drop the journal."""
        os.replace(self.path, target)
        self.journal_path.unlink(missing_ok=True)


@dataclass
class Part:
    """A byte range that one connection brings; at: where it has come to, over all attempts."""

    start: int
    end: int
    at: int = field(init=False)

    def __post_init__(self):
        self.at = self.start


class Arrival:
    """A file's entry, its partial file, its parts, and its hash. Parts may land from several threads."""

    def __init__(self, entry: Entry, partial: Partial, stop: threading.Event):
        self.entry, self.partial = entry, partial
        self.parts = deque(Part(start, end) for start, end in partial.missing_parts())
        self.in_flight = 0
        self.landed = threading.Event()  # no connection writes to it any more
        self._streamer = None  # the part whose connection brings the whole file, where the hub ignores ranges
        self._changed = threading.Condition()
        self._stop = stop

    @property
    def is_large(self) -> bool:
        """Whether its hash is worth a thread of its own, beside those that receive."""
        return self.entry.size > PART_BYTES

    def wants(self, part: Part) -> bool:
        """Whether a part has something left to ask for."""
        if self._streamer is None:
            return part.at < part.end
        return self._streamer is part and not self.partial.is_complete

    def claim_stream(self, part: Part) -> bool:
        """Whether this part's connection is the one that brings the whole file; the first that asks is."""
        with self._changed:
            self._streamer = self._streamer or part
            return self._streamer is part

    def receive(self, part: Part, data) -> int:
        """Write bytes where the part has come to; returns how many bytes of whole blocks were journaled."""
        begin = part.at - part.at % BLOCK_BYTES
        self.partial.write(part.at, data)
        part.at += len(data)
        whole = part.at if part.at == self.partial.size else part.at - part.at % BLOCK_BYTES
        if whole <= begin:
            return 0
        with self._changed:
            before = self.partial.arrived_bytes
            self.partial.mark(begin, whole)
            self._changed.notify_all()
            return self.partial.arrived_bytes - before

    def digest(self) -> str:
        """Hash from the front as it arrives, read back from the file; returns when all has arrived.

        Raises Stopped when the fetch ends before.
        """
        digest, hashed, buffer = hashlib.sha256(), 0, memoryview(bytearray(HASH_BYTES))
        while hashed < self.partial.size and not self._stop.is_set():
            ready = min(HASH_BYTES, self._wait_front(hashed) - hashed)
            count = self.partial.read_into(buffer[:ready], hashed)
            digest.update(buffer[:count])
            hashed += count
        if hashed < self.partial.size:
            raise Stopped(f"stopped while {self.entry.path} was fetched")
        return digest.hexdigest()

    def _wait_front(self, hashed: int) -> int:
        with self._changed:
            while (front := self.partial.front()) <= hashed and not self._stop.is_set():
                self._changed.wait(STOP_CHECK_S)
            return max(front, hashed)


def check_space(folder: WeightsFolder, entries: list) -> None:
    """Raise ConfigurationError with both numbers where the entries still to come do not fit."""
    arrived = sum(arrived_bytes(folder, entry) for entry in entries)
    needed = max(sum(entry.size for entry in entries) - arrived, 0) + MARGIN_BYTES
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        raise ConfigurationError(
            f"{folder.path} needs {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free there; "
            "free some (scripts/weights list shows what the models take), or give another folder"
        )


def arrived_bytes(folder: WeightsFolder, entry: Entry) -> int:
    """Bytes of an entry that an earlier fetch has left on the disk."""
    partial = folder.partial / entry.sha256
    journal = partial.with_name(partial.name + JOURNAL_SUFFIX)
    if not partial.exists() or not journal.exists():
        return 0
    return min(journal.read_bytes().count(1) * BLOCK_BYTES, entry.size)
