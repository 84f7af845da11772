"""Shares decoding threads and memory between keys, so that nobody waits for another's slow pictures.

A key is whatever asks: an API key's name, or a visitor's address.
"""

import asyncio
import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Done = TypeVar("Done")
# Pictures that take longer, by estimate, are decoded in a lane for slow ones: a photo of 20 megapixels is quick.
QUICK_S = 0.25
# Of the threads for slow pictures: the event loop and quick pictures come first. Not more, because these threads hold
# the interpreter's lock for moments, and must get on then.
SLOW_NICE = 5
LEAST_PRIORITY = 19


class Room:
    """A number of places. Where keys wait for one, they take turns, and a key's own requests come in order.

    most_of_one: the most places that a key holds, even if others are free.
    """

    def __init__(self, size: int, most_of_one: int | None = None) -> None:
        self._free, self._most = size, most_of_one or size
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the key whose turn is next comes first

    @contextlib.asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Hold a place."""
        await self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    async def enter(self, key: str) -> None:
        """Wait for a place; whoever enters must leave."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self._call()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """Give a place back."""
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._call()

    def _call(self) -> None:
        """Give free places to those who wait."""
        while self._free and (key := self._next()) is not None:
            turns = self._waiting.pop(key)
            turns.popleft().set_result(None)
            if turns:
                self._waiting[key] = turns  # behind the others
            self._free -= 1
            self._held[key] += 1

    def _next(self) -> str | None:
        """The key whose turn it is."""
        for key, turns in list(self._waiting.items()):
            while turns and turns[0].done():  # cancelled
                turns.popleft()
            if not turns:
                del self._waiting[key]
            elif self._held[key] < self._most:
                return key
        return None


class Lane:
    """Threads that work for keys in turn."""

    def __init__(self, name: str, threads: int, nice: int = 0) -> None:
        self._room = Room(threads)
        self._threads = ThreadPoolExecutor(threads, name, initializer=_be_nice, initargs=(nice,))

    async def run(self, key: str, work: Callable[[], Done]) -> Done:
        """The result of work in a thread. Who is cancelled leaves at once; the thread is free when the work has ended."""
        await self._room.enter(key)
        job = asyncio.get_running_loop().run_in_executor(self._threads, work)

        def ended(job: "asyncio.Future[Done]") -> None:
            self._room.leave(key)
            if not job.cancelled():
                job.exception()  # asked for, so that asyncio reports none of a request that has left

        job.add_done_callback(ended)
        return await asyncio.shield(job)


def _be_nice(nice: int) -> None:
    """Lower this thread's priority by so much; Linux has one for each, and only root may raise one again."""
    thread = threading.get_native_id()
    if nice:
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + nice, LEAST_PRIORITY))


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
