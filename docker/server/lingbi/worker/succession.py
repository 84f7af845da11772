"""A worker on demand is a succession of processes at one port: each loads the model at most once, and gives all memory back
by ending.

This process holds the listening socket and has imported everything, but touches no GPU and starts no thread. So the next
process is a copy of it (takeover.py) that is there within milliseconds, and no client ever meets a closed port: a process that
is to go stops accepting and asks for its successor (SIGUSR1), and whoever connects meanwhile waits in the socket's queue.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence

from lingbi.errors import StartError
from lingbi.garbage import keep_from_collector, uncollected
from lingbi.settings import Settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.worker.main import WEDGED_STATUS, restarts_file
from lingbi.worker.restarts import Restarts
from lingbi.worker.takeover import HEARD, SUCCEED, Copies, Life, Live, Spares, opened_devices

log = logging.getLogger("lingbi.worker")
BACKLOG = 2048
ENDS, ENDS_WITHIN_S = 3, 60.0  # so many ends by fault, so close together: then supervisor decides
# Whether each next process is a copy; None: where the imports have left the GPU's driver alone.
COPIED: bool | None = None
PROGRAM = (sys.executable, "-m", "lingbi.worker")
# What a worker imports until it is ready, on either engine.
IMPORTED = (
    "lingbi.http.app",
    "lingbi.worker.accounts",
    "lingbi.worker.on_demand",
    "lingbi.worker.watchdog",
    "lingbi.engine.build",
    "lingbi.engine.local",
    "lingbi.engine.cpu.scheduler",
    "lingbi.engine.cpu.checkpoint",
    "lingbi.engine.turbomind.streams",
    "lingbi.engine.turbomind.uploads",
    "lingbi.engine.turbomind.workspaces",
    "lingbi.vision.tower",
    "lingbi.vision.tower_loading",
    "lmdeploy.turbomind",
    "transformers.models.clip.modeling_clip",
)


class Succession:
    """The process that the others come from. live: what they do; imported: the modules that they need; copied: as COPIED;
    program: the command line of those that are no copies."""

    def __init__(
        self,
        settings: Settings,
        live: Live,
        imported: Sequence[str] = IMPORTED,
        copied: bool | None = COPIED,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.settings, self.live, self.imported = settings, live, imported
        self.copied, self.program = copied, program
        self.restarts = Restarts(restarts_file(settings))
        self.current: int | None = None
        self.elders: set[int] = set()
        self.faults: deque[float] = deque(maxlen=ENDS)
        self.is_new, self.is_ending = True, False

    def run(self) -> int:
        """Until SIGTERM (0), or until processes fail again and again (the last one's status)."""
        with own_temporary_folder():
            signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
            self.listener = listen(self.settings.host, self.settings.port + self.settings.worker)
            import_all(self.imported)
            self.source = self._source()
            self._begin()
            while (status := self._hear(signal.sigwait(HEARD))) is None:
                continue
            return status

    def _source(self) -> Copies | Spares:
        """Where the next processes come from."""
        devices = opened_devices()
        if self.copied or (self.copied is None and not devices):
            return Copies(self.live)
        log.warning(
            "each process of this worker is started anew; opened by the imports: %s", ", ".join(devices) or "nothing"
        )
        return Spares(self.program, self.listener)

    def _hear(self, number: int) -> int | None:
        """What a signal asks for; the exit status if this process is to end."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.is_ending = True
            for pid in self._all():
                os.kill(pid, signal.SIGTERM)
        elif number == SUCCEED and self.current and not self.is_ending:
            self.elders.add(self.current)
            self._begin(self.current)
        return self._reap()

    def _all(self) -> list[int]:
        return [*self.elders, *(pid for pid in (self.current, self.source.waiting) if pid)]

    def _reap(self) -> int | None:
        """Take note of every process that has ended."""
        while self._all():
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return None
            fault = self._bury(pid, os.waitstatus_to_exitcode(status))
            if fault is not None:
                return fault
        if self.is_ending:
            self.restarts.forget()
            return 0
        return None

    def _bury(self, pid: int, status: int) -> int | None:
        """One process has ended. An elder's end is awaited; another one's is a fault, and the next process takes its place,
        unless that happens too often."""
        was_elder, is_spare = pid in self.elders, pid == self.source.waiting
        self.elders.discard(pid)
        self.source.waiting = None if is_spare else self.source.waiting
        self.current = None if pid == self.current else self.current
        if was_elder or self.is_ending:
            return None
        log.error("process %s of this worker ended with status %s; the next one takes its place", pid, status)
        self.faults.append(time.monotonic())
        self.restarts = Restarts(restarts_file(self.settings))  # counts why this one ended
        if len(self.faults) == ENDS and self.faults[-1] - self.faults[0] < ENDS_WITHIN_S:
            return status if status > 0 else WEDGED_STATUS
        if not is_spare:
            self._begin()
        return None

    def _begin(self, elder: int | None = None) -> None:
        life = Life(self.listener, elder, self.restarts, self.is_new)
        self.is_new = False
        self.current = self.source.begin(life)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises StartError."""
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}; end what uses it") from None
    listener.listen(BACKLOG)
    return listener


def import_all(names: Sequence[str]) -> None:
    """Import what every process of the succession needs, and keep the collector from touching, and so copying, it."""
    began = time.monotonic()
    with uncollected():
        for name in names:
            importlib.import_module(name)
    keep_from_collector()
    log.info("imported everything in %.1f s", time.monotonic() - began)
