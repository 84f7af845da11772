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


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT new requests get 503 while running ones finish, within a bound; again: at once."""

    def __init__(self, app: ASGIApp, service: Service, host: str, port: int, timeout_s: float) -> None:
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
            )
        )
        self.service, self.timeout_s = service, timeout_s
        self.deadline: float | None = None
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
        self.deadline = time.monotonic() + self.timeout_s

    async def on_tick(self, counter: int) -> bool:
        """Decide whether to stop; uvicorn asks ten times a second."""
        if self.deadline is not None:
            inside, is_late = self.service.admission.inside, time.monotonic() > self.deadline
            if inside and is_late:
                log.warning("%s requests are cut off: they did not end within %s s", inside, self.timeout_s)
            if is_late or not inside:
                self.should_exit = True
        return await super().on_tick(counter)
