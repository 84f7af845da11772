"""Servers on this machine that pictures are asked from: good, slow, endless and lying ones."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE_S = 60


@contextlib.contextmanager
def host(answer):
    """A TCP server, any number of connections at once: gives these bytes, or calls `answer(connection)`; yields its URL."""

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE_S)
            connection.recv(65536)
            answer(connection) if callable(answer) else connection.sendall(answer)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@contextlib.contextmanager
def folder_of(files: dict):
    """An HTTP server of {path: bytes}; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def redirect(to: str) -> bytes:
    """The answer that sends elsewhere."""
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def silent(connection) -> None:
    """Nothing, until the client leaves."""
    connection.recv(1)


def drip(connection) -> None:
    """A byte now and then."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.1)


def endless(connection) -> None:
    """A body without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


LYING_LONGER = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"
LYING_HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx"
LYING_NEGATIVE = b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx"
