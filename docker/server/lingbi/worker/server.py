"""A uvicorn server that drains before it stops: it refuses new requests and finishes running ones."""

import asyncio
import logging
import socket
import threading
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from lingbi.http.readiness import DRAINING
from lingbi.http.service import Service

log = logging.getLogger(__name__)
CLOSE_S = 2  # for requests that still run after the drain timeout
# Looks, ten a second, at which nothing was left before a process leaves: with and without a connection on which a request
# may still come. They are counted, not timed, since a process that gets no processor time reads nothing meanwhile.
LINGER_LOOKS, LEAST_LOOKS = 30, 2
ONE_REQUEST = [("Connection", "close")]


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT new requests get 503 while running ones finish, within a bound; again: at once.

    is_left_to_others: whether another process takes this one's place at the same socket (`leave`). Then each connection is
    for one request, so that none comes to a process that has ended.
    """

    def __init__(
        self, app: ASGIApp, service: Service, host: str, port: int, timeout_s: float, is_left_to_others: bool = False
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=CLOSE_S,
                headers=ONE_REQUEST if is_left_to_others else None,
            )
        )
        self.service, self.timeout_s = service, timeout_s
        self.deadline: float | None = None
        self.leaves_by: float | None = None
        self.quiet_looks = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.is_up.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining on the first signal, and stop at once on the second (uvicorn's hook)."""
        if self.deadline is None:
            self.drain(DRAINING)
        else:
            self.deadline = time.monotonic()

    def drain(self, phase: str, error: str | None = None) -> None:
        """Refuse new requests, and stop when the running ones have finished or the timeout has passed."""
        self.service.readiness.enter(phase, error)
        if self.service.waking and self.loop:
            waking = self.service.waking
            self.loop.call_soon_threadsafe(*((waking.refuse, error) if error else (waking.end,)))
        self._end_lines()
        self.deadline = time.monotonic() + self.timeout_s

    @property
    def _inside(self) -> int:
        """What is still to be answered here: requests, and lines of batches."""
        return self.service.admission.inside + self.service.running_lines()

    def _end_lines(self) -> None:
        """Have the lines of batches given back at once: another worker, or the next one, asks them."""
        self.service.takes_lines = False
        if self.loop:
            self.loop.call_soon_threadsafe(self.service.look_at_batches)

    def leave(self, timeout_s: float) -> None:
        """Take no more connections, and stop when all requests of those that are here have been answered, or the timeout has
        passed. Belongs to the event loop."""
        for server in self.servers:
            server.close()
        self._end_lines()
        self.leaves_by, self.quiet_looks = time.monotonic() + timeout_s, 0

    def _has_left(self) -> bool:
        """Whether nothing is left to answer: no request, and none that is still to come."""
        if self.leaves_by is None:
            return False
        if time.monotonic() > self.leaves_by:
            log.warning("%s requests are cut off: others wait for the memory", self.service.admission.inside)
            return True
        self.quiet_looks = 0 if self._inside else self.quiet_looks + 1
        return self.quiet_looks >= (LINGER_LOOKS if self.server_state.connections else LEAST_LOOKS)

    async def on_tick(self, counter: int) -> bool:
        """Decide whether to stop; uvicorn asks ten times a second."""
        if self.deadline is not None:
            inside = self._inside
            is_late = time.monotonic() > self.deadline
            if inside and is_late:
                log.warning("%s requests are cut off: they did not end within %s s", inside, self.timeout_s)
            if is_late or not inside:
                self.should_exit = True
        if self._has_left():
            self.should_exit = True
        return await super().on_tick(counter)
