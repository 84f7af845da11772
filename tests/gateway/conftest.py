"""The real nginx, rendered and started as users do; and upstream servers that misbehave on purpose."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from lingbi.launch.supervision import wait_until
from tests.conftest import ROOT, free_port, running_worker

SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"


class Upstream:
    """A server in place of lingbi's, for what the real one cannot be made to do.

    behaviour: "answer", "stream", "refuse" (503), "asleep" (503 for who sends Prefer), "hang", "slow" (0.5 s), "break later"
    (within its answer).
    sent: time.monotonic() of each chunk.
    """

    def __init__(self, name: str = "upstream"):
        self.name, self.behaviour, self.seen, self.peers, self.left, self.sent = name, "answer", [], set(), 0, []
        self.port = free_port()
        app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST"])])
        options = {"port": self.port, "log_level": "critical", "timeout_keep_alive": 5}
        self.server = uvicorn.Server(uvicorn.Config(app, **options))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert wait_until(lambda: self.server.started, 10)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, request):
        self.peers.add(request.client.port)
        size = len(await request.body())
        self.seen.append({"path": request.url.path, "headers": dict(request.headers), "bytes": size})
        match self.behaviour if self.behaviour != "asleep" else "refuse" if "prefer" in request.headers else "answer":
            case "refuse":
                return JSONResponse({"error": {"code": "not_ready"}}, 503, {"Retry-After": "7"})
            case "slow":
                await asyncio.sleep(0.5)
            case "hang":
                await asyncio.sleep(3600)
            case "stream":
                return StreamingResponse(self._stream(50, 0.1), media_type="text/event-stream")
            case "break later":
                return StreamingResponse(self._stream(2, 0.1, breaks=True), media_type="text/event-stream")
        return JSONResponse({"name": self.name, "bytes": size})

    async def _stream(self, chunks: int, pause_s: float, breaks: bool = False):
        try:
            for number in range(chunks):
                self.sent.append(time.monotonic())
                yield f"data: {json.dumps({'number': number})}\n\n"
                await asyncio.sleep(pause_s)
            if breaks:
                raise SystemBreak
        except asyncio.CancelledError:
            self.left += 1
            raise

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)


class Breaker:
    """A server that takes a request whole and closes the connection without a word."""

    def __init__(self):
        self.listener, self.seen = socket.create_server(("127.0.0.1", 0)), []
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                connection, _ = self.listener.accept()
                with connection, connection.makefile("rb") as stream:
                    head = b"".join(iter(stream.readline, b"\r\n")).lower()
                    size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                    self.seen.append({"bytes": len(stream.read(size))})

    def stop(self) -> None:
        self.listener.close()


class SystemBreak(RuntimeError):
    """Ends a connection within an answer."""


class Gateway:
    """A running gateway: its URL, its log, and its commands."""

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.port, self.inner_port = folder, free_port(), free_port()
        program = shutil.which("nginx", path=SEARCH)
        assert program, "nginx is not here; scripts/test installs it"
        known = {"DIR": folder, "PORT": self.port, "INNER_PORT": self.inner_port, "NGINX": program}
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
        self.environment |= {f"LINGBI_GATEWAY_{key}": str(value) for key, value in (known | settings).items()}
        self.environment["PYTHONPATH"] = str(ROOT / "docker/gateway")
        self.scheme = "http" if settings.get("TLS", "off") == "off" else "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def inner_url(self) -> str:
        return f"http://127.0.0.1:{self.inner_port}"

    def command(self, action: str, **options) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "lingbi_gateway", action]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=60, **options)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def requests(self, path: str, count: int) -> list:
        """The lines of the access log for a path, when there are as many: nginx writes one after its answer's last byte."""

        def found() -> list:
            lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
            return [line for line in lines if line["path"] == path]

        assert wait_until(lambda: len(found()) >= count, 5), self.log()
        return found()


@contextlib.contextmanager
def running_gateway(servers: list, **settings):
    """nginx before these servers (HOST:PORT), with these settings (names without prefix)."""
    folder = Path(tempfile.mkdtemp(prefix="lingbi-gateway-"))
    folder.chmod(0o755)
    gateway = Gateway(folder, {"SERVERS": ",".join(servers)} | settings)
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lingbi_gateway"], env=gateway.environment, stdout=log, stderr=log
        )
    try:
        health = f"http://127.0.0.1:{gateway.inner_port}/none"
        assert wait_until(lambda: process.poll() is not None or _listens(health), 20), gateway.log()
        assert process.poll() is None, gateway.log()
        gateway.process = process
        yield gateway
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _listens(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 404
    except httpx.HTTPError:
        return False


@pytest.fixture
def upstreams():
    """upstreams(n): so many servers whose behaviour can be chosen."""
    made = []

    def make(count: int) -> list:
        made.extend(Upstream(f"server-{number}") for number in range(count))
        return made[-count:]

    yield make
    for upstream in made:
        upstream.stop()


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Three real servers with the demo model and the same key."""
    folder = tmp_path_factory.mktemp("workers")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running_worker(folder / "0"))
        keys = {"LINGBI_KEYS_FILE": str(folder / "0" / "keys"), "LINGBI_API_KEY_FILE": str(folder / "0" / "api-key")}
        others = []
        for number in (1, 2):
            (folder / str(number)).mkdir()
            (folder / str(number) / "api-key").write_text(first["key"])
            others.append(stack.enter_context(running_worker(folder / str(number), **keys)))
        yield [first, *others]
