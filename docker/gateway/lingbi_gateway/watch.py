"""What runs beside nginx and ends with it: applies changes in the servers folder as they come, and keeps the router running.

A server that starts with other workers lists them in that folder. The router is started once it is needed, and
again whenever it ends; questions wait at its socket meanwhile, which this process holds.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from lingbi_gateway import routes
from lingbi_gateway.configuration import Machine
from lingbi_gateway.nginx import lists
from lingbi_gateway.router import process
from lingbi_gateway.settings import Settings

LOOK_S = 2.0
AGAIN_S = 0.5  # between two starts of the router
GATEWAY = (sys.executable, "-m", "lingbi_gateway")


def start(settings: Settings, machine: Machine, ends: socket.socket) -> None:
    """Watch in a process beside the one that becomes nginx, if a list may change or the router is needed. ends: the socket
    at which nginx tells the ends of requests."""
    is_needed = settings.watch == "on" or not settings.servers or _needs_router(settings.dir)
    if not is_needed:
        return
    listener, nginx = process.listen(settings.dir / routes.SOCKET, machine.user), os.getpid()
    if os.fork():
        listener.close()
        return
    try:
        Watch(settings, machine, (listener, ends), nginx).run()
    finally:
        os._exit(0)


def _needs_router(folder: Path) -> bool:
    try:
        return json.loads((folder / routes.FILE).read_text(encoding="utf-8")) is not None
    except (OSError, ValueError):
        return False


class Watch:
    """The process beside nginx. sockets: the router's; nginx: the process id of nginx's main process."""

    def __init__(
        self, settings: Settings, machine: Machine, sockets: tuple[socket.socket, socket.socket], nginx: int
    ) -> None:
        self.settings, self.machine, self.sockets, self.nginx = settings, machine, sockets, nginx
        self.applied = lists(settings.servers_folder)
        self.router: int | None = None

    def run(self) -> None:
        """Look again and again, until nginx ends."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # the end of the router ends a wait
        looked = time.monotonic()
        while os.getppid() == self.nginx:
            self._keep_router()
            signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)
            if self.settings.watch == "on" and time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                self._apply_list()
        if self.router:
            os.kill(
                self.router, signal.SIGKILL
            )  # it holds nothing, and who is left would think this process had failed

    def _apply_list(self) -> None:
        """Have nginx reload after a change. A list that nginx refuses is told, and changes nothing."""
        found = lists(self.settings.servers_folder)
        if found != self.applied:
            self.applied = found
            subprocess.run([*GATEWAY, "reload"])

    def _keep_router(self) -> None:
        if self.router and os.waitpid(self.router, os.WNOHANG)[0]:
            print("error: the router ended; it is started again", file=sys.stderr, flush=True)
            self.router = None
            time.sleep(AGAIN_S)
        if self.router is None and _needs_router(self.settings.dir):
            self.router = process.fork(self.sockets, self.settings.dir, self.machine.user, self.nginx)
