"""The router's process: answers nginx's questions on a Unix socket, and follows routes.json.

nginx passes it a request's body where that is small, or the name of the file that nginx keeps it in. It answers with
X-Accel-Redirect and the upstream's name, and nginx passes the request there: no answer ever comes by here. The files'
folder and the socket belong to the user of nginx's processes, whom this process runs as.
"""

import asyncio
import grp
import json
import logging
import os
import pwd
import signal
import socket
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from lingbi_gateway.router.affinity import beginning
from lingbi_gateway.router.decision import ROUTED, ROUTED_IMPATIENT, Refused, Routed, Routes, decide, find
from lingbi_gateway.router.offer import PATH, Answer, models, refused_client
from lingbi_gateway.router.outlines import Unreadable, outline, outline_of_file
from lingbi_gateway.router.running import Running
from lingbi_gateway.router.told import PATH as TOLD
from lingbi_gateway.router.told import told

log = logging.getLogger(__name__)
BACKLOG = 4096
LOOK_S = 0.5
ENDS_BYTES = 4 << 20  # room for the ends that come while a body is read; the system may give less
ENTER_ALONE = 0o700
ENDS_AT_ONCE, ENDS_LONGEST = 64, 4096
HEALTHY = Answer(200, b'{"status":"ok"}\n')
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
PASSED = ("authorization", "x-request-id")
Headers = dict[str, str]


def listen(file: Path, user: tuple[str, str] | None) -> socket.socket:
    """The socket that nginx asks at, in a folder that only the user of nginx's processes may enter."""
    file.parent.mkdir(mode=ENTER_ALONE, exist_ok=True)
    file.parent.chmod(ENTER_ALONE)
    file.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(file))
    listener.listen(BACKLOG)
    if user:
        for path in (file.parent, file):
            os.chown(path, pwd.getpwnam(user[0]).pw_uid, grp.getgrnam(user[1]).gr_gid)
    return listener


def hear() -> socket.socket:
    """The socket at which nginx tells the ends of requests, at a port that is free."""
    ends = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ends.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ENDS_BYTES)
    ends.bind(("127.0.0.1", 0))
    ends.setblocking(False)
    return ends


def fork(sockets: tuple[socket.socket, socket.socket], folder: Path, user: tuple[str, str] | None, nginx: int) -> int:
    """Start the router, as the user of nginx's processes; its process id. nginx: that of nginx's main process.

    sockets: what `listen` and `hear` made. It is forked, because that user may have no access to this interpreter's own folder.
    """
    "x".encode("idna")  # what name lookups import later
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if user:
            os.setgroups([])
            os.setgid(grp.getgrnam(user[1]).gr_gid)
            os.setuid(pwd.getpwnam(user[0]).pw_uid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        asyncio.run(Router(folder).run(*sockets, keeper, nginx))
        status = 0
    except BaseException as error:  # whatever it is: this copy of the keeper must end here
        print(f"error: the router ended: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


class Router:
    """Reads bodies and decides. folder: the gateway's, with routes.json and nginx's folder of bodies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.routes, self._stamp = folder, Routes(), (0, 0)
        self.running = Running()
        self._reading = ThreadPoolExecutor(1, "read")  # several threads would only take the interpreter in turn
        self.follow()

    def follow(self) -> None:
        """Take the routes over if they have changed; what is half written is read at the next look."""
        file = self.folder / "routes.json"
        try:
            status = file.stat()
            stamp = status.st_mtime_ns, status.st_size
            if stamp != self._stamp:
                self.routes, self._stamp = Routes.of(json.loads(file.read_text(encoding="utf-8"))), stamp
        except (OSError, ValueError):
            return

    async def run(self, listener: socket.socket, ends: socket.socket, keeper: int, nginx: int) -> None:
        """Serve until the keeper is gone: then nginx is ended too, since nobody would start this process again."""
        loop = asyncio.get_running_loop()
        loop.add_reader(ends, self._hear, ends)
        server = await loop.create_unix_server(lambda: Connection(self), sock=listener, backlog=BACKLOG)
        async with server:
            while os.getppid() == keeper:
                await asyncio.sleep(LOOK_S)
                self.follow()
        await loop.run_in_executor(None, _end, nginx)

    async def answer(self, path: str, headers: Headers, body: bytes) -> Routed | Answer:
        """What to do with a request."""
        if path == "/healthz":
            return HEALTHY
        if path == TOLD:
            return told(self.running, self.routes.servers)
        if path == PATH or path.startswith(f"{PATH}/"):
            if self.routes.models:
                return await models(self.routes, path.rstrip("/"), _passed(headers))
            decision = find(self.routes, path.removeprefix(f"{PATH}/"))
        else:
            asked = await self._read(headers, body)
            decision = self._placed(decide(self.routes, asked), asked, headers)
        return await self.refuse(headers, decision) if isinstance(decision, Refused) else decision

    def decide_at_once(self, path: str, headers: Headers, body: bytes) -> Routed | Refused | None:
        """What to do with a request whose body is small, which most are; None for all others."""
        if not path.startswith("/v1/") or path.startswith(PATH) or "x-body-file" in headers:
            return None
        asked = _outline(body)
        return self._placed(decide(self.routes, asked), asked, headers)

    async def refuse(self, headers: Headers, decision: Refused) -> Answer:
        """The answer to a request for a model that there is not: first of all a server judges the key."""
        return await refused_client(self.routes, _passed(headers)) or Answer(decision.status, decision.body())

    def _placed(self, decision: Routed | Refused, asked: Any, headers: Headers) -> Routed | Refused:
        """The decision with the server that holds what the request begins with, where there are several."""
        if isinstance(decision, Refused) or not self.routes.places or not isinstance(asked, dict):
            return decision
        model, begins = self.routes.of_pool(decision.pool), beginning(asked)
        if model is None or begins is None or len(model.servers) < 2:
            return decision
        placed = self.running.begin(model.servers, begins, headers["x-lingbi-token"], _is_impatient(headers))
        return replace(decision, server=placed.server)

    def _hear(self, ends: socket.socket) -> None:
        for _ in range(ENDS_AT_ONCE):
            try:
                self.running.end(ends.recv(ENDS_LONGEST).decode("latin-1"))
            except BlockingIOError:
                return

    async def _read(self, headers: Headers, body: bytes) -> Any:
        name = headers.get("x-body-file")
        if not name:
            return _outline(body)
        file = Path(name)
        if file.parent != self.folder / "body":
            return None
        return await asyncio.get_running_loop().run_in_executor(self._reading, _outline_of_file, file)


def _outline(body: bytes) -> Any:
    try:
        return outline(body)
    except Unreadable:
        return None


def _outline_of_file(file: Path) -> Any:
    try:
        return outline_of_file(file)
    except (Unreadable, OSError):  # the client may have left, and its file with it
        return None


def _end(nginx: int) -> None:
    """Have nginx end when its answers are done, if it still runs."""
    try:
        os.kill(nginx, signal.SIGQUIT)
    except OSError as error:
        print(f"error: the gateway's watcher is gone, and nginx cannot be ended: {error}", file=sys.stderr, flush=True)


class Connection(asyncio.Protocol):
    """A connection that nginx keeps open, and asks one question after the other on."""

    def __init__(self, router: Router) -> None:
        self.router, self._came = router, bytearray()
        self._task: asyncio.Task[None] | None = None  # kept, or it might be collected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A question is answered when it is whole; its body is in memory and so at most 128 KiB."""
        self._came += data
        end = self._came.find(b"\r\n\r\n")
        if end < 0:
            return
        path, headers = _head(bytes(self._came[:end]))
        size = int(headers.get("content-length") or 0)
        if len(self._came) < end + 4 + size:
            return
        body, self._came = bytes(self._came[end + 4 :]), bytearray()
        decision = self.router.decide_at_once(path, headers, body)
        if isinstance(decision, Routed):
            self._transport.write(written(decision, headers))
            return
        answer = self.router.refuse(headers, decision) if decision else self.router.answer(path, headers, body)
        self._task = asyncio.ensure_future(self._answer(path, headers, answer))

    def connection_lost(self, why: Exception | None) -> None:
        """Whoever asked has gone, or has waited for too long: a body that nobody has begun to read is read no more."""
        if self._task:
            self._task.cancel()

    async def _answer(self, path: str, headers: Headers, answer: Coroutine[Any, Any, Routed | Answer]) -> None:
        try:
            self._transport.write(written(await answer, headers))
        except Exception:
            log.exception("%s could not be routed", path)
            self._transport.close()  # nginx says 503


def _passed(headers: Headers) -> dict[str, str]:
    """Those of the client's headers by which a server judges its key."""
    return {name: headers[name] for name in PASSED if headers.get(name)}


def _is_impatient(headers: Headers) -> bool:
    """Whether the client waits for a model to be loaded only as long as it says, and comes again; nginx tells."""
    return "x-lingbi-impatient" in headers


def _head(text: bytes) -> tuple[str, Headers]:
    first, *lines = text.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first.split(" ")[1].partition("?")[0], {name.lower(): value.strip() for name, _, value in pairs}


def written(decision: Routed | Answer, headers: Headers) -> bytes:
    """The HTTP answer for nginx. headers: the question's. A model's name is sent as its UTF-8 bytes, as it stands in bodies."""
    body = b""
    if isinstance(decision, Routed):
        lines = ["200 OK", f"X-Accel-Redirect: {ROUTED_IMPATIENT if _is_impatient(headers) else ROUTED}"]
        lines += [f"X-Lingbi-{name}: {value}" for name, value in vars(decision).items() if value]
    else:
        body = decision.body
        lines = [f"{decision.status} {REASONS.get(decision.status, 'Error')}", f"Content-Type: {decision.type}"]
        lines += ["WWW-Authenticate: Bearer"] if decision.status == 401 else []
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}"])
    return f"HTTP/1.1 {head}\r\n\r\n".encode() + body
