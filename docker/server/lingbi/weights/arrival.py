"""One file on its way: the parts still to be asked for, and the hash that follows its front."""

import hashlib
import threading
from collections import deque
from dataclasses import dataclass, field

from lingbi.weights.entries import Entry
from lingbi.weights.failures import Stopped
from lingbi.weights.partial import BLOCK_BYTES, PART_BYTES, Partial

HASH_BYTES = 1 << 20
STOP_CHECK_S = 0.5


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
