"""Stand-ins for mirrors: an HTTP server of files that are given to it, and of what it fetches from elsewhere when asked."""

import base64
import contextlib
import hashlib
import io
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.containers.engine import sources as engine_sources

PASSED_ON = ("Accept", "Range", "If-Modified-Since")  # of a request that is answered from elsewhere
RETURNED = ("content-type", "content-length", "content-range", "last-modified", "etag")


class Mirror(ThreadingHTTPServer):
    """files: {path: bytes}. upstream: {path's beginning: address in its place}. renamed: {text: what HTML and JSON from there
    have in its place}. asked: the paths of all requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.upstream, self.renamed, self.asked = {}, {}, {}, []
        few = httpx.HTTPTransport(retries=5, limits=httpx.Limits(max_connections=8))
        self.client = httpx.Client(transport=few, follow_redirects=True, timeout=httpx.Timeout(120, pool=None))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path in self.server.files:
            self.answer(200, {"Content-Type": "text/html"}, [self.server.files[self.path]])
            return
        start = next((start for start in self.server.upstream if self.path.startswith(start)), None)
        if start is None:
            self.answer(404, {}, [b"not here"])
            return
        try:
            self.pass_on(self.server.upstream[start] + self.path.removeprefix(start))
        except httpx.TransportError as error:
            self.answer(502, {}, [str(error).encode()])

    do_HEAD = do_GET

    def pass_on(self, url: str) -> None:
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers} | {
            "Accept-Encoding": "identity"
        }
        with self.server.client.stream(self.command, url, headers=headers) as found:
            told = {name: found.headers[name] for name in RETURNED if name in found.headers}
            if "html" in told.get("content-type", "") or "json" in told.get("content-type", ""):
                text = found.read().decode()
                for before, after in self.server.renamed.items():
                    text = text.replace(before, after)
                self.answer(found.status_code, told, [text.encode()])
            else:
                self.answer(found.status_code, told, found.iter_raw(1 << 16), told.get("content-length"))

    def answer(self, status: int, headers: dict, body, length: str | None = None) -> None:
        body = body if length else [b"".join(body)]
        self.send_response(status)
        for name, value in headers.items():
            if name != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body[0])))
        self.end_headers()
        if self.command != "HEAD":
            for part in body:
                self.wfile.write(part)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def mirror():
    """A running Mirror that has nothing yet."""
    server = Mirror()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        server.client.close()


def wheel(name: str, version: str = "1", script: str = "") -> bytes:
    """A package of one module, with a program of its name where a shell script is given."""
    info = f"{name}-{version}.dist-info"
    members = {
        f"{name}.py": b"HERE = True\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        members[f"{name}-{version}.data/scripts/{name}"] = script.encode()
    digests = {
        path: base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        for path, content in members.items()
    }
    record = "".join(f"{path},sha256={digests[path].decode()},{len(members[path])}\n" for path in members)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in (members | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}).items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def offer(server: Mirror, name: str, content: bytes, version: str = "1") -> str:
    """Have a mirror offer a package; returns the line of a lock that names these bytes."""
    file = f"{name}-{version}-py3-none-any.whl"
    server.files[f"/simple/{name}/"] = f'<!DOCTYPE html><a href="/files/{file}">{file}</a>'.encode()
    server.files[f"/files/{file}"] = content
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"


def pass_pypi_on(server: Mirror) -> str:
    """Have a mirror offer all that PyPI has; returns the index's address."""
    index, files = pips_own_index()
    server.upstream |= {"/simple/": f"{index}/", "/files/": f"{files}/"}
    server.renamed[f"{files}/"] = f"{server.url}/files/"
    return f"{server.url}/simple"


def pips_own_index() -> tuple[str, str]:
    """The addresses that pip has of PyPI: of its index, and of its files."""
    told = "from pip._internal.models.index import PyPI; print(PyPI.simple_url, PyPI.file_storage_domain)"
    done = subprocess.run([f"{sys.base_prefix}/bin/python3", "-c", told], capture_output=True, text=True, check=True)
    index, files = done.stdout.split()
    return index, f"https://{files}"


def pass_debian_on(server: Mirror) -> str:
    """Have a mirror offer all that this machine's own mirror of Debian has; returns its address."""
    found = re.search(r"^URIs: (\S+)/debian$", engine_sources(), re.M)
    assert found, "this machine names no mirror of Debian"
    server.upstream |= {f"/{part}/": f"{found[1]}/{part}/" for part in ("debian", "debian-security")}
    return server.url
