"""Whether the gateway answers others while one address holds thousands of half requests.

`python -m tests.load.half_requests --connections 20000` starts a gateway before one server. From 127.0.0.2 so many
connections are kept that each send half a header and no more; whichever the gateway ends is opened anew at once.
From 127.0.0.1 a question is asked on a new connection all the time. It prints how long the answers took, how many
half requests were held, the memory of nginx, and how many lines its log got. `--header-bytes 14000` makes each half
request as dear as it can be, and `--tls` sends half a TLS handshake instead. Exit status 1 if the 95th percentile of
the answers is above 1 s, if one failed, or if fewer half requests were held than asked for.
"""

import argparse
import contextlib
import http.client
import multiprocessing
import selectors
import socket
import ssl
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import psutil

from lingbi.launch.supervision import wait_until
from tests.gateway.conftest import Upstream, running_gateway

ATTACKER = "127.0.0.2"
LONGEST_S = 1.0
ROUND = 500  # connections that are begun before the others are looked at again
PER_PROCESS = 10_000  # within the usual limit of open files
HONEST_PAUSE_S = 0.02


class HalfRequests:
    """So many connections from one address that each hold half a request.

    held: how many are open and have sent their half; begun: how many there were in all.
    """

    def __init__(self, port: int, count: int, half: bytes):
        self.port, self.count, self.half, self.begun, self.open = port, count, half, 0, {}
        self.selector = selectors.DefaultSelector()

    @property
    def held(self) -> int:
        return sum(self.open.values())

    def keep(self, seconds: float, told: Any) -> None:
        """Hold them for so long; told becomes (held now, begun in all)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(min(ROUND, self.count - len(self.open))):
                self._begin()
            for key, events in self.selector.select(0.05):
                self._go_on(key.fileobj, events)
            told[:] = self.held, self.begun
        for client in list(self.open):
            self._end(client)

    def _begin(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen at the connection
        client.bind((ATTACKER, 0))
        client.connect_ex(("127.0.0.1", self.port))
        self.begun += 1
        self.open[client] = False
        self.selector.register(client, selectors.EVENT_WRITE)

    def _go_on(self, client: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                client.sendall(self.half)
                self.open[client] = True
                self.selector.modify(client, selectors.EVENT_READ)
            elif not client.recv(65536):
                self._end(client)
        except OSError:
            self._end(client)

    def _end(self, client: socket.socket) -> None:
        self.selector.unregister(client)
        client.close()
        del self.open[client]


def half_request(header_bytes: int, is_tls: bool) -> bytes:
    """The beginning of a request with about so many bytes of headers, or that of a TLS handshake."""
    if is_tls:
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # a ClientHello of 512 bytes that do not come
    count = -(-header_bytes // 7000)  # each within nginx's limit for one header
    filling = b"".join(b"X-Filling: " + b"a" * (header_bytes // count) + b"\r\n" for _ in range(count))
    return b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + filling


@dataclass
class Found:
    """What one run found.

    asked: half requests that should be held; held: the most that were; begun: all that were begun while others asked.
    seconds, faults: of the honest asker's answers. mib: the most memory of nginx. lines: what else its log got.
    """

    asked: int
    held: int = 0
    begun: int = 0
    seconds: list = field(default_factory=list)
    faults: list = field(default_factory=list)
    mib: float = 0
    lines: int = 0

    @property
    def p95_s(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[-1]

    def is_within_bounds(self) -> bool:
        is_attacked = self.held >= 0.9 * self.asked and self.begun
        return bool(is_attacked) and not self.faults and len(self.seconds) > 20 and self.p95_s <= LONGEST_S

    def __str__(self) -> str:
        return (
            f"{self.held} of {self.asked} half requests held, {self.begun} begun meanwhile; {len(self.seconds)} honest "
            f"answers, {len(self.faults)} faults {sorted(set(self.faults))[:3]}; "
            f"median {statistics.median(self.seconds) * 1000:.1f} ms, p95 {self.p95_s * 1000:.1f} ms, "
            f"longest {max(self.seconds) * 1000:.1f} ms; nginx {self.mib:.0f} MiB; {self.lines} log lines"
        )


def _attack(port: int, count: int, half: bytes, seconds: float, told: Any) -> None:
    HalfRequests(port, count, half).keep(seconds, told)


@contextlib.contextmanager
def attack(port: int, count: int, half: bytes, seconds: float):
    """The attack in processes of its own; gives a function that says how many are (held now, begun in all)."""
    context = multiprocessing.get_context("spawn")
    parts = [min(PER_PROCESS, count - begin) for begin in range(0, count, PER_PROCESS)]
    told = [context.Array("i", 2) for _ in parts]
    jobs = [
        context.Process(target=_attack, args=(port, part, half, seconds, one), daemon=True)
        for part, one in zip(parts, told, strict=True)
    ]
    for job in jobs:
        job.start()
    try:
        yield lambda: (sum(one[0] for one in told), sum(one[1] for one in told))
    finally:
        for job in jobs:
            job.terminate()
            job.join(20)


def measure(gateway, count: int, half: bytes, seconds: float) -> Found:
    """Ask while the attack runs, from when it holds most of its half requests, or 10 s after its begin."""
    found = Found(count)
    with attack(gateway.port, count, half, seconds + 60) as state, _watched(gateway, state, found):
        wait_until(lambda: state()[0] >= 0.9 * count, 10)
        lines, begun = gateway.log().count("\n"), state()[1]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            _ask(gateway, found)
            time.sleep(HONEST_PAUSE_S)
        found.lines = gateway.log().count("\n") - lines - len(found.seconds)
        found.begun = state()[1] - begun
    return found


def _ask(gateway, found: Found) -> None:
    start = time.monotonic()
    connection = _connection(gateway.scheme, gateway.port)
    try:
        connection.request("GET", "/v1/models")
        status = connection.getresponse().status
        found.faults += [str(status)] if status != 200 else []
    except (OSError, http.client.HTTPException) as error:
        found.faults.append(type(error).__name__)
    finally:
        connection.close()
    found.seconds.append(time.monotonic() - start)


def _connection(scheme: str, port: int) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    context = ssl._create_unverified_context()  # the certificate is not what is measured
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)


@contextlib.contextmanager
def _watched(gateway, state, found: Found):
    """Notes the most that was held, and the most memory that nginx had, meanwhile."""
    done, process = threading.Event(), psutil.Process(gateway.process.pid)

    def watch() -> None:
        while not done.wait(0.25):
            found.held = max(found.held, state()[0])
            found.mib = max(found.mib, _mib([process, *process.children()]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _mib(processes: list) -> float:
    """Their memory without what they share."""
    return sum(process.memory_full_info().uss for process in processes) / (1 << 20)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.load.half_requests", description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[4300, 20_000])
    parser.add_argument("--header-bytes", type=int, default=0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    half, tls = half_request(options.header_bytes, options.tls), "generated" if options.tls else "off"
    server, is_well = Upstream(), True
    for count in options.connections:
        with running_gateway([server.address], UI=server.address, TLS=tls) as gateway:
            found = measure(gateway, count, half, options.seconds)
        print(found, flush=True)
        is_well = is_well and found.is_within_bounds()
    server.stop()
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
