"""A worker on demand is a succession of processes at one port: each loads the model at most once, and gives all memory back
by ending.

This process holds the listening socket and has imported everything, but touches no GPU and starts no thread. So the next
process is a copy of it (fork) that is there within milliseconds, and no client ever meets a closed port: a process that is to
go stops accepting and asks for its successor (SIGUSR1), and whoever connects meanwhile waits in the socket's queue.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lingbi.errors import LingbiError, StartError
from lingbi.garbage import keep_from_collector, uncollected
from lingbi.settings import Settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.worker.main import WEDGED_STATUS, exit_now, restarts_file
from lingbi.worker.restarts import Restarts

log = logging.getLogger("lingbi.worker")
BACKLOG = 2048
SUCCEED = signal.SIGUSR1
HEARD = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, SUCCEED}
ENDS, ENDS_WITHIN_S = 3, 60.0  # so many ends by fault, so close together: then supervisor decides
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)
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


@dataclass(frozen=True)
class Life:
    """What a process of the succession is given: the socket; its elder, which may still be at its last answers, or None;
    whether it is the first of all."""

    listener: socket.socket
    elder: int | None
    restarts: Restarts
    is_first: bool


class Succession:
    """The process that the others come from. live: what they do, with the exit status as its result; imported: the modules
    that they need."""

    def __init__(self, settings: Settings, live: Callable[[Life], int], imported: Sequence[str] = IMPORTED) -> None:
        self.settings, self.live, self.imported = settings, live, imported
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
            self._fork()
            while (status := self._hear(signal.sigwait(HEARD))) is None:
                continue
            return status

    def _hear(self, number: int) -> int | None:
        """What a signal asks for; the exit status if this process is to end."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.is_ending = True
            for pid in self._all():
                os.kill(pid, signal.SIGTERM)
        elif number == SUCCEED and self.current and not self.is_ending:
            self.elders.add(self.current)
            self._fork(self.current)
        return self._reap()

    def _all(self) -> list[int]:
        return [*self.elders, *([self.current] if self.current else [])]

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
        was_elder = pid in self.elders
        self.elders.discard(pid)
        if was_elder or self.is_ending:
            self.current = None if pid == self.current else self.current
            return None
        log.error("process %s of this worker ended with status %s; the next one takes its place", pid, status)
        self.current = None
        self.faults.append(time.monotonic())
        self.restarts = Restarts(restarts_file(self.settings))  # counts why this one ended
        if len(self.faults) == ENDS and self.faults[-1] - self.faults[0] < ENDS_WITHIN_S:
            return status if status > 0 else WEDGED_STATUS
        self._fork()
        return None

    def _fork(self, elder: int | None = None) -> None:
        life = Life(self.listener, elder, self.restarts, self.is_new)
        self.is_new = False
        parent = os.getpid()
        sys.stdout.flush()
        self.current = os.fork()
        if self.current:
            return
        status = StartError.exit_status
        try:
            end_with(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
            with own_temporary_folder():
                status = self.live(life)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except LingbiError as error:
            log.error("%s", error)
            status = error.exit_status
        except BaseException:  # this copy must end here, whatever it is
            log.exception("this process of the worker failed")
        finally:
            exit_now(status)


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


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that comes about."""
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        exit_now(WEDGED_STATUS)
