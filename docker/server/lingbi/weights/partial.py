"""A file that is arriving: its bytes in place, and a journal of which blocks are there.

The file has its final size from the first byte on, so parts need no merging and no second copy. A
block is journaled after its bytes were handed to the kernel: a kill loses less than a block a
connection. A crash of the machine may leave the journal ahead of the bytes; the hash tells.
"""

import os
from pathlib import Path

BLOCK_BYTES = 1 << 18
PART_BYTES = 1 << 25  # asked for in one request
JOURNAL_SUFFIX = ".blocks"


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
