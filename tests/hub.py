"""A ModelScope hub on this machine: the client's protocol, with faults on demand.

Speaks what modelscope-hub 0.5.1 asks for: listings (cut at 3000 entries, as the real one), files
directly for small ones (ranges ignored), and a redirect to a "CDN" (another port, ranges and a
signature that can expire) for large ones. `python -m tests.hub FOLDER` serves FOLDER/OWNER/NAME.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

LISTING_LIMIT = 3000
LFS_BYTES = 1 << 20
SEND_BYTES = 1 << 18
REPO = re.compile(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?$")


@dataclass
class Faults:
    """What goes wrong. Counts go down as they happen; -1 is for ever."""

    statuses: list = field(default_factory=list)  # answered to the next requests, hub and CDN alike
    cdn_statuses: list = field(default_factory=list)  # answered by the CDN only
    headers: dict = field(default_factory=dict)  # sent along with such a status
    flips: int = 0  # downloads of large files with one byte wrong
    drop_after_bytes: int = 0  # the connection is closed after so many bytes of a body
    rate: int = 0  # bytes a second and connection
    is_html: bool = False  # every file is a login page
    hangs: int = 0  # requests that are never answered
    delay_s: float = 0  # before every answer begins
    is_gone: bool = False  # connections are closed without an answer
    ignores_ranges: bool = False
    listing: callable = None  # changes the list of entries
    before_file: callable = None  # called with a file's name and the range that was asked for, before an answer is sent


class Hub:
    """Two servers on 127.0.0.1: the hub, and its CDN under the name localhost."""

    def __init__(self, root: Path, token: str | None = None, port: int = 0):
        self.root, self.token = Path(root), token
        self.faults = Faults()
        self.requests, self.sent = [], Counter()
        self.lock = threading.Lock()
        self.hashes = {}
        self.released = threading.Event()
        self.servers = [Server(("127.0.0.1", port), self, HubHandler), Server(("127.0.0.1", 0), self, CdnHandler)]
        self.url = f"http://127.0.0.1:{self.servers[0].server_port}"
        self.cdn_url = f"http://localhost:{self.servers[1].server_port}"

    def start(self) -> "Hub":
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.released.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def folder(self, model: str, revision: str) -> Path:
        """A revision is a folder beside the model: NAME@REVISION; master is NAME."""
        return self.root / (model if revision == "master" else f"{model}@{revision}")

    def listing(self, model: str, revision: str) -> list:
        folder = self.folder(model, revision)
        entries = []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_dir():
                entries.append({"Path": name, "Name": path.name, "Type": "tree", "Size": 0})
            else:
                size = path.stat().st_size
                is_lfs = size >= LFS_BYTES
                entries.append(
                    {"Path": name, "Name": path.name, "Type": "blob", "Size": size, "IsLFS": is_lfs}
                    | {"Sha256": self.hash_of(path)}
                )
        return self.faults.listing(entries) if self.faults.listing else entries

    def hash_of(self, path: Path) -> str:
        status = path.stat()
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self.hashes:
            with path.open("rb") as stream:
                digest = sha256()
                while data := stream.read(1 << 20):
                    digest.update(data)
            self.hashes[key] = digest.hexdigest()
        return self.hashes[key]

    def take(self, name: str):
        """The next of a list fault, or True/False of a counted one."""
        with self.lock:
            value = getattr(self.faults, name)
            if isinstance(value, list):
                return value.pop(0) if value else None
            if value > 0:
                setattr(self.faults, name, value - 1)
            return value != 0

    def paths(self, kind: str = "") -> list:
        """Request lines so far that contain a text."""
        return [line for line, _ in self.requests if kind in line]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, hub: Hub, handler):
        self.hub = hub
        super().__init__(address, handler)

    def handle_error(self, request, client_address):
        """Clients are killed in tests: a broken pipe is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kind = ""

    def log_message(self, *arguments):
        """Requests are kept in hub.requests."""

    def do_GET(self):
        hub = self.server.hub
        hub.requests.append((f"{self.kind} {self.path}", dict(self.headers)))
        time.sleep(hub.faults.delay_s)
        if hub.faults.is_gone:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif hub.take("hangs"):
            hub.released.wait()
        else:
            self.answer(hub)

    def fail(self, status: int) -> None:
        body = json.dumps({"Code": status, "Message": "made to fail"}).encode()
        self.send_response(status)
        for name, value in self.server.hub.faults.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, value) -> None:
        self.send_page(json.dumps({"Code": 200, "Success": True, "Data": value}).encode(), "application/json")

    def send_html(self) -> None:
        self.send_page(b"<html>please log in</html>", "text/html; charset=utf-8")

    def send_page(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, path: Path, may_range: bool) -> None:
        size, asked = path.stat().st_size, self.headers.get("Range", "")
        if before_file := self.server.hub.faults.before_file:
            before_file(path.name, asked)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if may_range else None
        start, end = (int(span[1]), min(int(span[2] or size - 1) + 1, size)) if span else (0, size)
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.flush()
        with path.open("rb") as stream:
            self.send_body(stream, path, start, end)

    def send_body(self, stream, path: Path, start: int, end: int) -> None:
        hub, began, at = self.server.hub, time.monotonic(), start
        is_flipped = start == 0 and path.stat().st_size >= LFS_BYTES and hub.take("flips")
        limit = min(end, start + hub.faults.drop_after_bytes) if hub.faults.drop_after_bytes else end
        try:
            while at < limit:
                size = min(SEND_BYTES, limit - at)
                if is_flipped:
                    data = bytearray(os.pread(stream.fileno(), size, at))
                    data[100] ^= 1
                    self.connection.sendall(data)
                    at, is_flipped = at + size, False
                else:
                    at += os.sendfile(self.connection.fileno(), stream.fileno(), at, size)
                if hub.faults.rate:
                    time.sleep(max(0, (at - start) / hub.faults.rate - (time.monotonic() - began)))
        finally:  # the client may be killed while it receives: what was sent counts
            with hub.lock:
                hub.sent[path.name] += at - start
        if limit < end:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


class HubHandler(Handler):
    kind = "hub"

    def answer(self, hub: Hub) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match = REPO.fullmatch(url.path)
        status = hub.take("statuses")
        if status:
            return self.fail(status)
        if not match or not (hub.root / match[1]).is_dir():
            return self.fail(404)
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.fail(403)
        if match[2]:
            return self.send_listing(hub, match[1], query)
        return self.send_blob(hub, hub.folder(match[1], query["Revision"]) / query["FilePath"])

    def do_POST(self):
        """git-lfs's batch API at /lfs/OWNER/NAME, for comparisons: objects by their SHA-256."""
        hub, body = self.server.hub, self.rfile.read(int(self.headers["Content-Length"]))
        folder = hub.root / urlsplit(self.path).path.removeprefix("/lfs/").removesuffix("/objects/batch")
        by_hash = {hub.hash_of(path): path for path in folder.rglob("*") if path.is_file()}
        objects = [
            item | {"actions": {"download": {"href": f"{hub.cdn_url}/{by_hash[item['oid']].relative_to(hub.root)}"}}}
            for item in json.loads(body)["objects"]
        ]
        answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self.send_page(answer, "application/vnd.git-lfs+json")

    def send_listing(self, hub: Hub, model: str, query: dict) -> None:
        if not hub.folder(model, query["Revision"]).is_dir():
            return self.send_json({"Files": None})
        root = query.get("Root", "").strip("/")
        entries = [item for item in hub.listing(model, query["Revision"]) if _is_under(item["Path"], root, query)]
        return self.send_json({"Files": entries[:LISTING_LIMIT]})

    def send_blob(self, hub: Hub, path: Path) -> None:
        if hub.faults.is_html:
            return self.send_html()
        if not path.is_file():
            return self.fail(404)
        if path.stat().st_size < LFS_BYTES:
            return self.send_file(path, may_range=False)
        self.send_response(302)
        self.send_header("Location", f"{hub.cdn_url}/{quote(str(path.relative_to(hub.root)))}?signature=1")
        self.send_header("Content-Length", "0")
        return self.end_headers()


class CdnHandler(Handler):
    kind = "cdn"

    def answer(self, hub: Hub) -> None:
        from urllib.parse import unquote

        status = hub.take("cdn_statuses") or hub.take("statuses")
        if status:
            return self.fail(status)
        return self.send_file(hub.root / unquote(urlsplit(self.path).path[1:]), not hub.faults.ignores_ranges)


def _is_under(path: str, root: str, query: dict) -> bool:
    if root and not path.startswith(root + "/"):
        return False
    rest = path[len(root) + 1 :] if root else path
    return query["Recursive"] == "True" or "/" not in rest


@contextlib.contextmanager
def running_hub(root: Path, **options):
    hub = Hub(root, **options).start()
    try:
        yield hub
    finally:
        hub.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description="Serve FOLDER/OWNER/NAME as models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0, help="MiB a second and connection")
    options = parser.parse_args()
    hub = Hub(options.folder, port=options.port)
    hub.faults.rate = int(options.rate * (1 << 20))
    hub.start()
    print(json.dumps({"url": hub.url, "cdn": hub.cdn_url}), flush=True)
    hub.released.wait()


if __name__ == "__main__":
    main()
