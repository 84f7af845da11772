"""uvicorn's server, ending in order: it refuses what is new and finishes what runs."""

import asyncio
import logging
import threading
import time

import uvicorn

from lingbi.http.readiness import DRAINING

log = logging.getLogger(__name__)
CLOSE_S = 2  # for what still runs when the bound has passed


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT new requests get 503 while running ones finish, within a bound; again: at once."""

    def __init__(self, app, service, host: str, port: int, timeout_s: float):
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
        self.deadline = None
        self.loop = None
        self.is_up = threading.Event()

    async def startup(self, sockets=None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.is_up.set()

    def handle_exit(self, sig, frame) -> None:
        """A signal came (uvicorn's hook)."""
        if self.deadline is None:
            self.drain(DRAINING)
        else:
            self.deadline = time.monotonic()

    def drain(self, phase: str, error: str | None = None) -> None:
        """Refuse what is new and end when what runs has finished, or the time is up."""
        self.service.readiness.enter(phase, error)
        self.deadline = time.monotonic() + self.timeout_s

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's ten looks a second at whether to end."""
        if self.deadline is not None:
            inside, is_late = self.service.admission.inside, time.monotonic() > self.deadline
            if inside and is_late:
                log.warning("%s requests are cut off: they did not end within %s s", inside, self.timeout_s)
            if is_late or not inside:
                self.should_exit = True
        return await super().on_tick(counter)
