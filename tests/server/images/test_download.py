"""Fetching by URL: real servers on this machine, allowed by network where they must be reached."""

import asyncio
import contextlib
import gzip
import socket
import threading
import time
import zlib

import pytest

from lingbi.api_errors import ImageError
from lingbi.images.addresses import is_allowed, parse_networks
from lingbi.images.download import FetchRules, fetch
from tests.server.images.image_hosts import LYING_HUGE, LYING_LONGER, LYING_NEGATIVE, drip, endless, redirect

LOOPBACK = parse_networks("127.0.0.0/8")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.contextmanager
def server(answer, host="127.0.0.1"):
    """A TCP server that gives these bytes, or calls `answer(connection)`; yields its port and the hits."""
    hits = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    hits.append(connection.recv(65536))
                    answer(connection) if callable(answer) else connection.sendall(answer)

    with socket.create_server((host, 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], hits
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def get(url: str, **rules) -> bytes:
    return asyncio.run(fetch(url, FetchRules(**{"networks": LOOPBACK, "timeout_s": 3} | rules)))


def reason_of(url: str, **rules) -> str:
    with pytest.raises(ImageError) as caught:
        get(url, **rules)
    return caught.value.reason


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200"]
    + ["0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "198.18.0.1", "192.0.2.1", "168.63.129.16"]
    + ["::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1"]
    + ["::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:db8::1"]
    + ["fec0::1", "feff::1", "1::1", "4000::1", "64:ff9b:1::808:808", "64:ff9b::a9fe:a9fe", "::8.8.8.8", "2001::1"],
)
def test_addresses_inside_are_refused(address):
    assert not is_allowed(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"]
)
def test_public_addresses_are_allowed(address):
    assert is_allowed(address)


def test_an_operator_may_allow_a_network_and_no_other():
    networks = parse_networks("10.1.0.0/16, fd00:1::/32")
    assert is_allowed("10.1.2.3", networks) and is_allowed("fd00:1::5", networks)
    assert not is_allowed("10.2.0.1", networks) and not is_allowed("127.0.0.1", networks)
    with pytest.raises(ValueError):
        parse_networks("10.1.0.0/33")


def test_an_image_is_fetched_with_its_hosts_name():
    with server(OK) as (port, hits):
        assert get(f"http://localhost:{port}/a?b=c", networks=parse_networks("127.0.0.0/8,::1/128")) == b"hello"
    assert b"GET /a?b=c HTTP/1.1\r\nHost: localhost:%d\r\n" % port in hits[0]


def test_nothing_is_sent_to_an_address_that_is_not_allowed():
    with server(OK) as (port, hits):
        for host in (
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f000001",
            "0177.1",
            "[::ffff:127.0.0.1]",
            "127.0.0.1.",
        ):
            assert reason_of(f"http://{host}:{port}/", networks=()) in ("address", "url")
    assert hits == []


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "gopher://x/",
        "",
        "//[::1]/",
    ],
)
def test_redirects_inward_are_refused(to):
    with server(redirect(to)) as (port, _):
        assert reason_of(f"http://127.0.0.1:{port}/") in ("address", "url")


def test_redirects_are_followed_and_counted():
    with server(OK) as (target, _), server(redirect(f"http://127.0.0.1:{target}/")) as (port, _):
        assert get(f"http://127.0.0.1:{port}/") == b"hello"
    with server(lambda connection: connection.sendall(redirect("/again"))) as (port, hits):
        assert reason_of(f"http://127.0.0.1:{port}/") == "url"
        assert len(hits) == 6


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/图.png".encode(), b"/%E5%9B%BE.png"),
        ("/图.png".encode("gbk"), b"/%CD%BC.png"),
        (b"/%E5%9B%BE.png", b"/%E5%9B%BE.png"),
        (b"/a b.png", b"/a%20b.png"),
    ],
)
def test_a_location_that_is_not_escaped_is_followed_as_browsers_do(location, path):
    def answer(connection):
        is_first = len(hits) == 1
        connection.sendall(redirect("/").replace(b"Location: /", b"Location: " + location) if is_first else OK)

    with server(answer) as (port, hits):
        assert get(f"http://127.0.0.1:{port}/") == b"hello"
    assert hits[1].startswith(b"GET " + path + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("head", [b"", b"Location:\r\n"])
def test_a_redirect_that_leads_nowhere_is_refused_as_one(head):
    nowhere = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + head + b"\r\n"
    with server(nowhere) as (port, _), pytest.raises(ImageError, match="redirects .status 302. without a Location"):
        get(f"http://127.0.0.1:{port}/")


def test_status_203_is_a_success_and_204_is_none():
    with server(OK.replace(b"200 OK", b"203 X")) as (port, _):
        assert get(f"http://127.0.0.1:{port}/") == b"hello"
    with server(b"HTTP/1.1 204 X\r\n\r\n") as (port, _):
        assert reason_of(f"http://127.0.0.1:{port}/") == "fetch"


def coded(body: bytes, coding: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Encoding: {coding}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (gzip.compress(b"hello", mtime=0), "gzip"),
        (gzip.compress(b"hello", mtime=0), "X-GZIP"),
        (zlib.compress(b"hello"), "deflate"),
        (b"hello", "identity"),
        (b"hello", ""),
    ],
)
def test_a_body_that_is_compressed_all_the_same_is_decoded(body, coding):
    with server(coded(body, coding)) as (port, hits):
        assert get(f"http://127.0.0.1:{port}/") == b"hello"
    assert b"Accept-Encoding: identity\r\n" in hits[0]


@pytest.mark.parametrize(
    ("body", "coding", "sentence"),
    [
        (b"hello", "br", "compressed it \\('br'\\), and only gzip and deflate are undone"),
        (b"hello", "gzip, gzip", "'gzip, gzip'"),
        (b"hello", "gzip", "says that it is 'gzip', and it is not"),
        (gzip.compress(b"hello" * 100)[:-9], "gzip", "sent only a part"),
        (gzip.compress(bytes(1001)), "gzip", "at most 1000 are taken"),
        (gzip.compress(bytes(50 << 20)), "gzip", "at most 100000 are taken"),
    ],
    ids=["br", "twice", "not gzip", "truncated", "one byte too many", "bomb"],
)
def test_a_body_that_cannot_be_decoded_is_refused_by_name(body, coding, sentence):
    with server(coded(body, coding)) as (port, _), pytest.raises(ImageError, match=sentence):
        get(f"http://127.0.0.1:{port}/", max_bytes=1000 if len(body) < 1000 else 100_000)


@contextlib.contextmanager
def deaf(address: str, port: int):
    """A listener whose queue is full: connections to it are neither taken nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield


@pytest.mark.parametrize("timeout_s", [10, 3])
def test_every_address_of_a_host_is_tried(monkeypatch, timeout_s):
    """The first two never answer, which must not use up the time of the third."""
    addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.1")
    with server(OK) as (port, _), deaf(addresses[0], port), deaf(addresses[1], port):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        start = time.monotonic()
        assert get(f"http://three.example:{port}/", timeout_s=timeout_s) == b"hello"
    assert time.monotonic() - start < 9


def test_a_url_without_end_is_refused_by_its_length():
    assert reason_of("http://a/" + "b" * 70_000) == "url"


def test_a_name_that_changes_after_the_look_up_gains_nothing(monkeypatch):
    """The first look-up says a public address, every later one this machine: only the first counts."""
    asked, connected = [], []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def connect_tcp(self, host, port, *_, **__):
        connected.append(host)
        raise OSError("enough seen")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect_tcp)
    assert reason_of("http://rebind.example/", networks=()) == "fetch"
    assert asked == ["rebind.example"] and connected == ["93.184.216.34"]
    assert reason_of("http://rebind.example/", networks=()) == "address" and len(connected) == 1


def test_one_inner_address_among_outer_ones_is_enough_to_refuse(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert reason_of("http://two.example/", networks=()) == "address"


HOSTILE = {
    "silent": (lambda connection: time.sleep(5), "fetch"),
    "slow": (drip, "fetch"),
    "endless": (endless, "bytes"),
    "lies: longer": (LYING_LONGER, "fetch"),
    "lies: huge": (LYING_HUGE, "bytes|fetch"),
    "lies: negative": (LYING_NEGATIVE, "fetch"),
    "no http": (b"SSH-2.0-OpenSSH_9.0\r\n", "fetch"),
    "nothing": (b"", "fetch"),
    "404": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "fetch"),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000, "fetch"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_servers_cost_a_bounded_time(name):
    answer, reasons = HOSTILE[name]
    start = time.monotonic()
    with server(answer) as (port, _):
        assert reason_of(f"http://127.0.0.1:{port}/", max_bytes=1 << 20) in reasons.split("|")
    assert time.monotonic() - start < 10


def test_hosts_can_be_listed_and_all_fetching_turned_off():
    with server(OK) as (port, hits):
        assert reason_of(f"http://127.0.0.1:{port}/", hosts=("pictures.example",)) == "host"
        assert reason_of(f"http://127.0.0.1:{port}/", is_on=False) == "url"
        assert hits == []
        assert get(f"http://127.0.0.1:{port}/", hosts=("127.0.0.1",)) == b"hello"


@pytest.mark.parametrize(
    "url",
    ["http://", "http://:80/", "http://a b/", "http://[::1", "http://\x00/", "http://" + "a" * 9000, "http://x:99999/"],
)
def test_unusable_urls_are_refused(url):
    assert reason_of(url) in ("url", "fetch")


def test_https_is_checked():
    with server(OK) as (port, _):
        assert reason_of(f"https://127.0.0.1:{port}/") == "fetch"
