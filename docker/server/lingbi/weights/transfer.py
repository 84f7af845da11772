"""Fetches files over several connections, each file in parts, and verifies each by its hash.

Files are fetched in order, and the parts of a file from its front, so that the hash of a large file
follows its front while the rest arrives. What is hashed is what was written, read back.
"""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

import tenacity

from lingbi.errors import CheckError, FetchError
from lingbi.weights.arrival import STOP_CHECK_S, Arrival, Part, Partial
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.hub import OTHER_WAYS, Aborted, Hub, HubFailure
from lingbi.weights.lockfile import Entry
from lingbi.weights.progress import Progress

log = logging.getLogger("lingbi.weights")
LONGEST_WAIT_S = 8
LONGEST_ASKED_WAIT_S = 120
HASHERS = 4
TELL_AFTER_S, TELL_EVERY_S = 5, 30
ATTEMPTS = 2  # at a whole file whose hash was wrong

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_backoff = tenacity.wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT_S, jitter=0.5)


class Patience:
    """Ends a fetch when nothing has arrived, on any connection, for limit_s seconds.

    Retries are not counted: a line that drops a thousand times still succeeds, as long as each
    attempt brings something.
    """

    def __init__(self, limit_s: float, stop: threading.Event):
        self.limit_s = limit_s
        self._stop = stop
        self._last, self._told = time.monotonic(), -math.inf

    def progress(self) -> None:
        self._last = time.monotonic()

    def call(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """Call a function until it succeeds.

        Raises FetchError with the last failure when the limit is reached, and Aborted when another
        part of the fetch has failed.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(HubFailure),
            stop=self._is_over,
            wait=_wait_s,
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return retrying(function, *arguments, **options)
        except HubFailure as failure:
            if self._stop.is_set():
                raise Aborted("aborted, because another part of the fetch failed") from failure
            raise FetchError(
                f"{failure}; no new byte has arrived for {time.monotonic() - self._last:.0f} s "
                f"(limit {self.limit_s} s). What has arrived is kept: run the same command again to resume. "
                f"Where no hub is in reach, name a mirror (LINGBI_HUB_ENDPOINT), {OTHER_WAYS}"
            ) from failure

    def _is_over(self, _state: tenacity.RetryCallState) -> bool:
        return self._stop.is_set() or time.monotonic() - self._last > self.limit_s

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        """Say what is wrong while nothing arrives, so that nobody takes the patience for a command that hangs."""
        now = time.monotonic()
        if now - self._last < TELL_AFTER_S or now - self._told < TELL_EVERY_S or state.outcome is None:
            return
        self._told = now
        left_s = max(0.0, self._last + self.limit_s - now)
        log.warning("%s; trying again for %.0f s (LINGBI_FETCH_PATIENCE_S)", state.outcome.exception(), left_s)


def _wait_s(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: what the hub asked for, within a limit, or exponential backoff."""
    failure = state.outcome.exception() if state.outcome else None
    asked_s = failure.retry_after_s if isinstance(failure, HubFailure) else None
    return _backoff(state) if asked_s is None else min(max(asked_s, 0), LONGEST_ASKED_WAIT_S)


class Transfer:
    """Fetches entries of one model, via the folder's partial/, into its verified/."""

    def __init__(self, hub: Hub, model: str, revision: str, connections: int, patience: Patience, progress: Progress):
        self.hub, self.model, self.revision = hub, model, revision
        self.connections, self.patience, self.progress = connections, patience, progress
        self._schedule = threading.Lock()
        self._wrong: Counter[str] = Counter()
        self._open: list[Arrival] = []
        self._jobs: list[Future[None]] = []

    def fetch(self, entries: Iterable[Entry], folder: WeightsFolder) -> None:
        """Fetch all entries; raises the first failure after every connection has been closed.

        Raises FetchError, HubRefusal, CheckError (wrong bytes twice), or OSError if the disk fails.
        """
        self.folder = folder
        unique = {entry.sha256: entry for entry in entries}  # equal files are fetched once
        self._waiting = deque(unique.values())
        try:
            while self._waiting:  # a second round is for files that were wrong
                self._round()
        finally:
            for arrival in self._open:
                arrival.partial.close()
            self._open.clear()

    def _round(self) -> None:
        self._jobs = []  # the connections' jobs add those of hashing
        with ThreadPoolExecutor(HASHERS) as self._hashers, ThreadPoolExecutor(self.connections) as pool:
            self._jobs += [pool.submit(self._work) for _ in range(self.connections)]
            self._wait()
            self._wait()  # by now the jobs include all of the hashing
        failures = [error for job in self._jobs if (error := job.exception())]
        if failures:
            raise next((error for error in failures if not isinstance(error, Aborted)), failures[0])

    def _wait(self) -> None:
        done, _ = wait(list(self._jobs), return_when=FIRST_EXCEPTION)
        if any(job.exception() for job in done):
            self.hub.stop.set()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            arrival, part = job
            while part and arrival.wants(part):
                self.patience.call(self._request, arrival, part)
            self._land(arrival)

    def _next_job(self) -> tuple[Arrival, Part | None] | None:
        """The (arrival, part) to fetch next; the part is None if all of a file is already there."""
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
            self._jobs.append(self._hashers.submit(self._verify, arrival))
        return arrival

    def _land(self, arrival: Arrival) -> None:
        with self._schedule:
            arrival.in_flight -= 1
            is_last = not arrival.in_flight and not arrival.parts
        if is_last:
            arrival.landed.set()
        if is_last and not arrival.is_large:
            self._verify(arrival)

    def _verify(self, arrival: Arrival) -> None:
        """Move a file to verified/ if its hash is right; discard it if not, to be fetched once more."""
        is_right = arrival.digest() == arrival.entry.sha256
        # All bytes are there, but a connection that fetches some of them a second time may still be writing.
        while not arrival.landed.wait(STOP_CHECK_S):
            if self.hub.stop.is_set():
                raise Aborted(f"aborted while {arrival.entry.path} was being fetched")
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
                f"{self.hub.endpoint} sent bytes for {self.model} {entry.path} that do not match SHA-256 "
                f"{entry.sha256}, {ATTEMPTS} times: either the file has changed since its hash was listed, or it is "
                "damaged on the way. The folder is unchanged; try again later, or with another --endpoint"
            )
        with self._schedule:
            self._waiting.append(entry)

    def _request(self, arrival: Arrival, part: Part) -> None:
        """Make one request. A failure after some bytes counts as progress: the caller requests the rest at once."""
        start = part.at
        try:
            body = self.hub.stream(self.model, self.revision, arrival.entry.path, start, part.end)
            with body as (offset, chunks):
                self._receive(arrival, part, offset, chunks)
        except HubFailure:
            if part.at == start:
                raise
        if part.at == start and arrival.wants(part):
            raise HubFailure(f"{self.hub.endpoint} closed the connection for {arrival.entry.path} at byte {start}")

    def _receive(self, arrival: Arrival, part: Part, offset: int, chunks: Iterable[bytes]) -> None:
        if offset == part.at:
            for chunk in chunks:
                data = memoryview(chunk)[: part.end - part.at]
                self.progress.add(arrival.receive(part, data))
                self.patience.progress()
                if len(data) < len(chunk):  # more than was requested; otherwise read to the end, to keep the connection
                    return
        elif arrival.claim_stream(part):
            self._receive_whole(arrival, chunks)

    def _receive_whole(self, arrival: Arrival, chunks: Iterable[bytes]) -> None:
        """Receive a file from its start, because the hub ignores ranges: only new bytes count as progress."""
        whole = Part(0, arrival.entry.size)
        for chunk in chunks:
            new_bytes = arrival.receive(whole, memoryview(chunk)[: whole.end - whole.at])
            self.progress.add(new_bytes)
            if new_bytes:
                self.patience.progress()
