"""Requests that wait until the model is loaded, where models are loaded on demand."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping

from lingbi.api_errors import NotReady
from lingbi.demand.record import Record
from lingbi.http.readiness import ASLEEP, Readiness

COMMENT_S = 1.0
CALLED_S = 60.0  # how long a request that did not wait keeps the model wanted and, once it is loaded, in use
FAULT_SHOWN_S = 15  # after a failed check: who asks meanwhile is refused, and the first one after it tries again
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})")


class Waking:
    """The requests that wait for one worker's model. notify: called when one begins or ends to wait.

    It belongs to the event loop, all but `waiting` and `waited_s`, which any thread may read.
    """

    def __init__(self, readiness: Readiness, record: Record, wait_s: float, notify: Callable[[], None]) -> None:
        self.readiness, self.record, self.wait_s, self.notify = readiness, record, wait_s, notify
        self._began: dict[int, float] = {}  # of each request that waits
        self._called: tuple[float, float] | None = None  # the first and the latest request that does not wait
        self._has_promised = False  # one of those was told to come again
        self._awaited_until = 0.0  # by when it should have come, since the model is loaded
        self._opened: asyncio.Future[None] | None = None
        self._fault: tuple[str, float] | None = None  # what is said, and until when
        self._count = 0

    @property
    def must_wait(self) -> bool:
        """Whether a request cannot be answered now, but will be."""
        return not self.readiness.is_loaded

    @property
    def waiting(self) -> int:
        """Requests that wait; one that was told to come again counts for CALLED_S."""
        return len(self._began) + int(_is_fresh(self._called))

    @property
    def waited_s(self) -> float:
        """How long the first of them has waited."""
        called = self._called
        began = [*list(self._began.values()), *([called[0]] if called and _is_fresh(called) else [])]
        return max(0.0, time.monotonic() - min(began)) if began else 0.0

    @property
    def is_awaiting(self) -> bool:
        """Whether the model is loaded for a client that was told to come again, and nobody has come since."""
        return time.monotonic() < self._awaited_until

    def retry_after_s(self) -> int:
        """Seconds until the model is likely to be ready, by the last wake."""
        return max(1, math.ceil(self.record.read().last_s - self.waited_s))

    async def wait(self, patience_s: float | None = None) -> None:
        """Return once the model is loaded. patience_s: the most seconds that the client waits; None: as long as the server
        lets it. Raises NotReady."""
        async for _ in self.comments(patience_s):
            continue

    async def comments(self, patience_s: float | None = None) -> AsyncIterator[str]:
        """How far loading is, once a second until the model is loaded. Raises NotReady as `wait` does."""
        if not self.must_wait:
            return
        deadline = time.monotonic() + min(self.wait_s, math.inf if patience_s is None else patience_s)
        self._check_fault()
        self._count += 1
        number = self._count
        self._began[number] = time.monotonic()
        self.notify()
        try:
            while self.must_wait:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise self._late(patience_s)
                yield self.comment()
                await asyncio.wait({self._future()}, timeout=min(COMMENT_S, left_s))
                self._check_fault()
        finally:
            del self._began[number]
            self.notify()

    def comment(self) -> str:
        """How far the model is, in a line."""
        if self.readiness.phase == ASLEEP:
            return "waiting for the model's turn"
        return f"loading the model, {self.readiness.progress():.0%}"

    def call(self) -> None:
        """Want the model, though no request waits for it."""
        now = time.monotonic()
        self._called = (self._called[0] if self._called and _is_fresh(self._called) else now), now

    def come(self) -> None:
        """A request finds the model loaded."""
        self._awaited_until = 0.0

    def open(self) -> None:
        """The model is loaded: whoever waits goes on."""
        if self._has_promised and _is_fresh(self._called):
            self._awaited_until = time.monotonic() + CALLED_S
        self._forget()
        self._fault = None
        self._release()

    def refuse(self, why: str) -> None:
        """The model cannot be loaded: whoever waits is told why."""
        self._end(f"the model {self.readiness.model!r} cannot be loaded: {why}")

    def end(self) -> None:
        """This server ends: whoever waits is told so."""
        self._end(f"this server ends before the model {self.readiness.model!r} is loaded; try again")

    def _end(self, sentence: str) -> None:
        self._forget()
        self._fault = sentence, time.monotonic() + FAULT_SHOWN_S
        self._release()

    def _forget(self) -> None:
        self._called, self._has_promised = None, False

    def _release(self) -> None:
        if self._opened:
            self._opened.set_result(None)
            self._opened = None

    def _future(self) -> asyncio.Future[None]:
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
        return self._opened

    def _check_fault(self) -> None:
        if self._fault and time.monotonic() < self._fault[1]:
            left_s = max(1, math.ceil(self._fault[1] - time.monotonic()))
            raise _not_ready(self._fault[0], left_s)

    def _late(self, patience_s: float | None) -> NotReady:
        """The refusal of a request that has waited for as long as it may."""
        if patience_s is not None and patience_s < self.wait_s:
            self.call()
            self._has_promised = True
        seconds = self.retry_after_s()
        said = f"the model {self.readiness.model!r} is being loaded ({self.comment()})"
        return _not_ready(f"{said}; try again in {seconds} s", seconds)


def _is_fresh(called: tuple[float, float] | None) -> bool:
    """Whether the latest request that did not wait still wants the model."""
    return called is not None and time.monotonic() - called[1] < CALLED_S


def _not_ready(message: str, seconds: int) -> NotReady:
    return NotReady(message, headers={"Retry-After": str(seconds)}, reason="asleep")


def patience_of(headers: Mapping[str, str]) -> float | None:
    """The most seconds that a client waits for a model to be loaded, as its `Prefer` header says (RFC 7240): wait=N, or none
    with respond-async; None where it does not say."""
    prefer = headers.get("prefer", "")
    found = WAIT.search(prefer)
    if found:
        return float(found[1])
    return 0.0 if "respond-async" in prefer else None
