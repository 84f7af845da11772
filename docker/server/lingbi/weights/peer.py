"""A host that has a model, as a hub for hosts that do not: weights are fetched once and spread over the LAN.

It speaks as much of ModelScope's protocol as a fetch needs, so hosts fetch from each other as they do
from ModelScope: in parts, resuming where they stopped, each file verified by the lock's SHA-256.
"""

import hmac
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lingbi.errors import ConfigurationError
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.lockfile import Lock

REPO = re.compile(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Peer(ThreadingHTTPServer):
    """Serves one model folder to hosts that send the token. Raises ConfigurationError if it has no lock."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: Path, token: str):
        lock = WeightsFolder(folder).lock()
        if lock is None:
            raise ConfigurationError(f"{folder} has no lock: only what scripts/fetch has fetched can be shared")
        self.folder, self.lock, self.token = folder, lock, token
        self.entries = {entry.path: entry for entry in lock.entries}
        super().__init__(address, PeerHandler)


def listing(lock: Lock, root: str) -> list[dict[str, object]]:
    """The entries of a lock under a folder, and the folders that they are in, as ModelScope lists them."""
    inside = [entry for entry in lock.entries if not root or entry.path.startswith(f"{root}/")]
    folders = sorted({str(parent) for entry in inside for parent in Path(entry.path).parents if str(parent) != "."})
    trees: list[dict[str, object]] = [
        {"Path": name, "Name": Path(name).name, "Type": "tree", "Size": 0} for name in folders
    ]
    return trees + [
        {"Path": entry.path, "Name": Path(entry.path).name, "Type": "blob", "Size": entry.size, "Sha256": entry.sha256}
        for entry in inside
    ]


class PeerHandler(BaseHTTPRequestHandler):
    """Answers requests for the listing and the files of the peer's model, and for nothing else."""

    server: Peer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match = REPO.fullmatch(url.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not hmac.compare_digest(
            self.headers.get("Authorization", "").encode(), f"Bearer {self.server.token}".encode()
        ):
            self._send_json(403, {"Message": "the token is missing or wrong"})
        elif not match or match[1].lower() != self.server.lock.model.lower():
            self._send_json(404, {"Message": f"this host shares only {self.server.lock.model}"})
        elif match[2]:
            files = listing(self.server.lock, query.get("Root", "").strip("/"))
            self._send_json(200, {"Code": 200, "Success": True, "Data": {"Files": files}})
        elif query.get("FilePath") in self.server.entries:
            self._send_file(query["FilePath"])
        else:
            self._send_json(404, {"Message": "there is no such file in the lock"})

    def _send_json(self, status: int, value: dict[str, object]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, path: str) -> None:
        size = self.server.entries[path].size
        span = RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = (int(span[1]), min(int(span[2] or size - 1) + 1, size)) if span else (0, size)
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(max(0, end - start)))
        self.end_headers()
        with (self.server.folder / path).open("rb") as stream:
            if start < end:
                # Unlike os.sendfile, this waits for a host that receives slowly.
                self.connection.sendfile(stream, start, end - start)

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing: each part of a file is a request, which is too many to log."""
