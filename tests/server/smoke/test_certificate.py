"""A certificate is verified under a name that it holds, and by an authority that is trusted: nothing else passes."""

import contextlib
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from lingbi.errors import ConfigurationError
from lingbi.smoke.certificate import chosen
from lingbi.smoke.main import make_client

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
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(certificate: Path):
    """The URL of an https server of this certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def status(url: str, ca_file: Path | None, by_held_name: bool = True) -> int:
    with make_client(url, 10, ca_file, by_held_name) as client:
        return client.get("/live").status_code


@pytest.mark.parametrize("names", ["DNS:lab.example", "IP:10.9.8.7", "DNS:*.lab.example", "DNS:*.a.b,DNS:c.d"])
def test_it_is_verified_under_a_name_that_it_holds(authority, tmp_path, names):
    with serving(issue(authority, tmp_path, names)) as url:
        assert status(url, authority / "ca.pem") == 200
        with pytest.raises(httpx.ConnectError, match="certificate is not valid for '127.0.0.1'"):
            status(url, authority / "ca.pem", by_held_name=False)


def test_an_authority_that_nobody_here_trusts_is_refused_with_the_remedy(authority, tmp_path):
    own = issue(authority, tmp_path, "DNS:lab.example")
    with serving(own) as url:
        with pytest.raises(httpx.ConnectError, match=r"unable to get local issuer.*; give .* with --ca-file"):
            status(url, None)
        with pytest.raises(httpx.ConnectError, match="unable to get local issuer"):
            status(url, own)  # what is not signed by itself vouches for nothing


def test_a_certificate_without_a_name_is_told(authority, tmp_path):
    with (
        serving(issue(authority, tmp_path, "")) as url,
        pytest.raises(ConfigurationError, match="holds no name"),
    ):
        status(url, authority / "ca.pem")


def test_a_written_out_name_is_taken_before_a_pattern():
    assert chosen(["*.lab.example", "lab.example"]) == "lab.example"
    assert chosen(["*.lab.example"]) == "lingbi.lab.example"
