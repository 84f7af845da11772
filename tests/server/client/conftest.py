"""An authority of the tests, and https servers with certificates that it has signed."""

import contextlib
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Path:
    """A folder with a lab's own authority, ca.pem and ca.key."""
    folder = tmp_path_factory.mktemp("authority")
    openssl(folder, "req", "-x509", *NEW_KEY, "-subj", "/CN=the lab's own", "-keyout", "ca.key", "-out", "ca.pem")
    return folder


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def issue(authority: Path, folder: Path, names: str) -> Path:
    """A folder's certificate and key for these names, signed by the authority; no names: by none but CN."""
    extension = ["-addext", f"subjectAltName={names}"] if names else []
    signed = ["-CA", str(authority / "ca.pem"), "-CAkey", str(authority / "ca.key")]
    openssl(folder, "req", "-new", *NEW_KEY[:-2], "-subj", "/CN=lab", *extension, "-keyout", "key.pem", "-out", "asked")
    openssl(
        folder, "x509", "-req", *signed, "-days", "2", "-copy_extensions", "copy", "-in", "asked", "-out", "own.pem"
    )
    return folder / "own.pem"


class Answer(BaseHTTPRequestHandler):
    status: int = 200
    body: dict = {"data": [{"id": "served"}]}

    def do_GET(self):
        said = json.dumps(self.body).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(certificate: Path):
    """The URL of an https server of this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with running(Answer, context) as server:
        yield f"https://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def answering(status: int, body: dict):
    """The URL of a server that answers everything with this."""
    with running(type("Told", (Answer,), {"status": status, "body": body})) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def running(handler: type, context: ssl.SSLContext | None = None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
