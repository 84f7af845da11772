"""How the next process of a worker on demand comes to be: as a copy of this one, or as one that has waited for its turn.

A copy (fork) is there at once and shares what was imported. It can use the GPU as long as the imports have left the driver
alone. Where they have not, each process is started anew, and one is kept ahead that has imported everything: so no wake
pays for imports then either, and each process has 0.45 GB of its own.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lingbi.errors import LingbiError, StartError
from lingbi.settings import Settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.worker.main import WEDGED_STATUS, exit_now, restarts_file
from lingbi.worker.restarts import Restarts

log = logging.getLogger("lingbi.worker")
SUCCEED = signal.SIGUSR1
HEARD = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, SUCCEED}
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)
TAKE_OVER = "--take-over"  # in the command line of a process that waits for its turn


@dataclass(frozen=True)
class Life:
    """What a process of the succession is given: the socket; its elder, which may still be at its last answers, or None;
    the file of restarts; whether it is the first of all."""

    listener: socket.socket
    elder: int | None
    restarts: Restarts
    is_first: bool


Live = Callable[[Life], int]  # what a process does, with the exit status as its result


def opened_devices() -> list[str]:
    """The files of NVIDIA's driver that this process has open: some once CUDA was initialised, which a copy cannot use."""
    targets = []
    for entry in os.scandir("/proc/self/fd"):
        try:
            targets.append(os.readlink(entry.path))
        except FileNotFoundError:  # of this very look
            continue
    return sorted({target for target in targets if target.startswith("/dev/nvidia")})


class Copies:
    """Each next process is a copy of this one."""

    waiting: int | None = None  # the process that is kept ahead

    def __init__(self, live: Live) -> None:
        self.live = live

    def begin(self, life: Life) -> int:
        """The process id of a process with this life."""
        parent = os.getpid()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            exit_now(status_of(self.live, life, parent))
        return pid


class Spares:
    """Each next process is one that was started anew and has waited for its turn. program: its command line, which Spares
    adds to."""

    def __init__(self, program: Sequence[str], listener: socket.socket) -> None:
        self.program, self.listener = program, listener
        listener.set_inheritable(True)
        self.waiting: int | None = None
        self._door = -1
        self._keep_one()

    def begin(self, life: Life) -> int:
        """As Copies.begin."""
        if self.waiting is None:
            self._keep_one()
        assert self.waiting is not None
        pid, self.waiting = self.waiting, None
        told = {"elder": life.elder, "is_first": life.is_first, "restarts": life.restarts.reasons}
        os.write(self._door, json.dumps(told).encode())
        os.close(self._door)
        self._keep_one()
        return pid

    def _keep_one(self) -> None:
        read, self._door = os.pipe()
        os.set_inheritable(read, True)
        arguments = map(str, (self.listener.fileno(), read, os.getpid()))
        command = [*self.program, TAKE_OVER, *arguments]
        self.waiting = os.posix_spawn(command[0], command, os.environ, setsigmask=())
        os.close(read)


def take_over(live: Live, settings: Settings, prepare: Callable[[], None], arguments: Sequence[str]) -> int:
    """What a process that is kept ahead does: prepares, waits for its turn, and lives. Returns the exit status.

    prepare: imports everything; arguments: as Spares gives them.
    """
    listener, door, parent = map(int, arguments)
    end_with(parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until it lives
    with own_temporary_folder():
        prepare()
        told = b""
        while more := os.read(door, 1 << 12):
            told += more
        if not told:
            return 0
        life = json.loads(told)
        restarts = Restarts(restarts_file(settings), life["restarts"])
        return status_of(live, Life(socket.socket(fileno=listener), life["elder"], restarts, life["is_first"]), parent)


def status_of(live: Live, life: Life, parent: int) -> int:
    """The exit status with which a process has lived, however that came out."""
    try:
        end_with(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        with own_temporary_folder():
            return live(life)
    except SystemExit as stop:
        return int(stop.code or 0)
    except LingbiError as error:
        log.error("%s", error)
        return error.exit_status
    except BaseException:  # a copy must end here, whatever it is
        log.exception("this process of the worker failed")
        return StartError.exit_status


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that comes about."""
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        exit_now(WEDGED_STATUS)
