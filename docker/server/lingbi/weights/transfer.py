"""Brings files in over several connections, each file in parts, and proves each by its hash.

Files come in order, parts of a file from its front, and a large file's hash follows the front
while the rest arrives: what is hashed is what was written, read back.
"""

import contextlib
import threading
import time
from collections import Counter, deque
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import tenacity

from lingbi.errors import CheckError, FetchError
from lingbi.weights.arrival import STOP_CHECK_S, Arrival, Part, Partial
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.hub import Hub, HubFailure, Stopped
from lingbi.weights.lockfile import Entry
from lingbi.weights.progress import Progress

LONGEST_WAIT_S = 8
LONGEST_ASKED_WAIT_S = 120
_backoff = tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT_S, jitter=0.5)
HASHERS = 4
ATTEMPTS = 2  # of a whole file whose hash was wrong


class Patience:
    """Ends a fetch when nothing has arrived, on any connection, for limit_s seconds.

    Retries are not counted: a line that drops a thousand times still ends right, as long as each
    time brings something.
    """

    def __init__(self, limit_s: float, stop: threading.Event):
        self.limit_s = limit_s
        self._stop = stop
        self._last = time.monotonic()

    def progress(self) -> None:
        self._last = time.monotonic()

    def is_over(self, _state=None) -> bool:
        return self._stop.is_set() or time.monotonic() - self._last > self.limit_s

    def call(self, function, *arguments):
        """Call until it succeeds. Raises FetchError when patience is over, with the last failure."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(HubFailure),
            stop=self.is_over,
            wait=_wait,
            sleep=self._stop.wait,
            reraise=True,
        )
        try:
            return retrying(function, *arguments)
        except HubFailure as failure:
            if self._stop.is_set():
                raise Stopped("stopped, as another part of the fetch failed") from failure
            raise FetchError(
                f"{failure}; nothing new for {time.monotonic() - self._last:.0f} s (limit {self.limit_s} s). "
                "What has arrived is kept: run the same command again to go on"
            ) from failure


def _wait(state: tenacity.RetryCallState) -> float:
    asked = state.outcome.exception().retry_after_s
    return _backoff(state) if asked is None else min(max(asked, 0), LONGEST_ASKED_WAIT_S)


class Transfer:
    """Fetches entries of one model into a folder's verified/, by way of its partial/, named by their SHA-256."""

    def __init__(self, hub: Hub, model: str, revision: str, connections: int, patience: Patience, progress: Progress):
        self.hub, self.model, self.revision = hub, model, revision
        self.connections, self.patience, self.progress = connections, patience, progress
        self._schedule = threading.Lock()
        self._wrong = Counter()

    def fetch(self, entries: list, folder: WeightsFolder) -> None:
        """Fetch all; raises the first failure after every connection has been closed.

        Raises FetchError, HubRefusal, CheckError (wrong bytes twice) or OSError of the disk.
        """
        self.folder = folder
        unique = {entry.sha256: entry for entry in entries}  # equal files come once
        self._waiting, self._open = deque(unique.values()), []
        try:
            while self._waiting:  # a second round: files that were wrong
                self._round()
        finally:
            for arrival in self._open:
                arrival.partial.close()

    def _round(self) -> None:
        self._jobs = []  # the workers add to it
        with ThreadPoolExecutor(HASHERS) as self._hashers, ThreadPoolExecutor(self.connections) as pool:
            self._jobs += [pool.submit(self._work) for _ in range(self.connections)]
            self._wait(self._jobs)
            self._wait(self._jobs)  # hashing that the workers have begun is among them by now
        failures = [job.exception() for job in self._jobs if job.exception()]
        if failures:
            raise next((error for error in failures if not isinstance(error, Stopped)), failures[0])

    def _wait(self, jobs: list) -> None:
        done, _ = wait(list(jobs), return_when=FIRST_EXCEPTION)
        if any(job.exception() for job in done):
            self.hub.stop.set()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            arrival, part = job
            while part and arrival.wants(part):
                self.patience.call(self._ask, arrival, part)
            self._land(arrival)

    def _next_job(self) -> tuple | None:
        """(arrival, part) to fetch next; the part is None where all of a file is there already."""
        with self._schedule:
            arrival = next((arrival for arrival in self._open if arrival.parts), None)
            if arrival is None:
                if not self._waiting:
                    return None
                arrival = self._begin(self._waiting.popleft())
            arrival.in_flight += 1
            return arrival, arrival.parts.popleft() if arrival.parts else None

    def _begin(self, entry: Entry) -> Arrival:
        arrival = Arrival(entry, Partial(self.folder.partial / entry.sha256, entry.size), self.hub.stop)
        self._open.append(arrival)
        if arrival.is_large:
            self._jobs.append(self._hashers.submit(self._prove, arrival))
        return arrival

    def _land(self, arrival: Arrival) -> None:
        with self._schedule:
            arrival.in_flight -= 1
            is_last = not arrival.in_flight and not arrival.parts
        if is_last:
            arrival.landed.set()
        if is_last and not arrival.is_large:
            self._prove(arrival)

    def _prove(self, arrival: Arrival) -> None:
        """Move a right file to verified/; drop a wrong one, to be fetched once more."""
        is_right = arrival.digest() == arrival.entry.sha256
        # All bytes are there; a connection that brings some of them once more may still write.
        while not arrival.landed.wait(STOP_CHECK_S):
            if self.hub.stop.is_set():
                raise Stopped(f"stopped while {arrival.entry.path} was fetched")
        with self._schedule:
            self._open.remove(arrival)
        arrival.partial.close()
        if is_right:
            arrival.partial.move_to(self.folder.verified / arrival.entry.sha256)
            return
        arrival.partial.discard()
        self._fetch_again(arrival.entry)

    def _fetch_again(self, entry: Entry) -> None:
        self.progress.add(-entry.size)
        self._wrong[entry.path] += 1
        if self._wrong[entry.path] >= ATTEMPTS:
            raise CheckError(
                f"{self.hub.endpoint} gave other bytes for {self.model} {entry.path} than SHA-256 {entry.sha256}, "
                f"{ATTEMPTS} times; the file has changed since its hash was listed, or something on the way spoils it. "
                "The folder is as it was; try again later, or with another --endpoint"
            )
        with self._schedule:
            self._waiting.append(entry)

    def _ask(self, arrival: Arrival, part: Part) -> None:
        """One request. A failure after some bytes is progress: the caller asks for the rest at once."""
        start = part.at
        try:
            body = self.hub.stream(self.model, self.revision, arrival.entry.path, start, part.end)
            with body as (offset, chunks), contextlib.closing(chunks):
                self._receive(arrival, part, offset, chunks)
        except HubFailure:
            if part.at == start:
                raise
        if part.at == start and arrival.wants(part):
            raise HubFailure(f"{self.hub.endpoint} closed {arrival.entry.path} before byte {part.end}")

    def _receive(self, arrival: Arrival, part: Part, offset: int, chunks) -> None:
        if offset == part.at:
            for chunk in chunks:
                data = memoryview(chunk)[: part.end - part.at]
                self.progress.add(arrival.receive(part, data))
                self.patience.progress()
                if len(data) < len(chunk):  # more than was asked for; else read on, so that the connection is kept
                    return
        elif arrival.claim_stream(part):
            self._receive_whole(arrival, chunks)

    def _receive_whole(self, arrival: Arrival, chunks) -> None:
        """The hub ignores ranges, so the body begins at the file's beginning: only new bytes are progress."""
        whole = Part(0, arrival.entry.size)
        for chunk in chunks:
            new_bytes = arrival.receive(whole, memoryview(chunk)[: whole.end - whole.at])
            self.progress.add(new_bytes)
            if new_bytes:
                self.patience.progress()
