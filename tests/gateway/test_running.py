"""The gateway counts the requests that run, and no others, however they end."""

import json
import re
import socket

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_gateway.router.affinity import beginning
from lingbi_gateway.router.running import MARK, Running
from tests.client import CHAT
from tests.conftest import suspended
from tests.gateway.conftest import running_gateway
from tests.gateway.test_model_routing import router_of

SERVERS = ["10.0.0.1:23333", "10.0.0.2:23333"]
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def pair(upstreams):
    """A gateway before two servers of one model."""
    servers = upstreams(2)
    with running_gateway([server.address for server in servers]) as gateway:
        gateway.servers = servers
        assert wait_until(lambda: router_of(gateway), 10)
        yield gateway


def running(gateway) -> int:
    told = httpx.get(f"{gateway.url}/metrics/gateway", timeout=30).text
    return sum(map(int, re.findall(r"running_requests{.*} (\d+)", told)))


def begin(gateway, number: int, size: int = 0) -> socket.socket:
    """A request whose client reads no answer."""
    body = json.dumps(HELLO | {"prompt_cache_key": str(number), "filler": "x" * size})
    client = socket.create_connection(("127.0.0.1", gateway.port))
    client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return client


@pytest.mark.parametrize("size", [0, 300_000], ids=["in memory", "in a file"])
def test_clients_that_leave_at_once_do_not_count(pair, size):
    for number in range(100):
        begin(pair, number, size).close()
    assert wait_until(lambda: running(pair) == 0, 5), running(pair)
    assert httpx.post(pair.url + CHAT, json=HELLO).status_code == 200


def test_a_client_that_leaves_before_the_router_has_read_does_not_count(pair):
    with suspended(router_of(pair).parent(), router_of(pair)):
        clients = [begin(pair, number, size) for size in (0, 300_000) for number in range(5)]
        assert wait_until(lambda: len(list((pair.folder / "body").rglob("0*"))) >= 5, 5)
        for client in clients:
            client.close()
        assert len(pair.requests(CHAT, 10)) == 10
    assert wait_until(lambda: running(pair) == 0, 5), running(pair)


def test_requests_that_no_server_answers_do_not_count(pair):
    for server in pair.servers:
        server.stop()
    assert {httpx.post(pair.url + CHAT, json=HELLO).status_code for _ in range(4)} == {503}
    assert wait_until(lambda: running(pair) == 0, 5), running(pair)


def test_streams_count_until_they_end(pair):
    for server in pair.servers:
        server.behaviour = "stream"
    clients = [begin(pair, number) for number in range(6)]
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert running(pair) == 6
    for client in clients:
        client.close()
    assert wait_until(lambda: running(pair) == 0, 5), running(pair)


def test_a_request_whose_end_is_told_first_is_placed_and_does_not_count():
    counts, begins = Running(), beginning(HELLO)
    counts.end(f"{MARK}first unix:/ask.sock|499")
    assert counts.begin(SERVERS, begins, "first").server in SERVERS
    assert not counts.loads and sum(counts.results.values()) == 0
    counts.begin(SERVERS, begins, "second")
    assert sum(counts.loads.values()) == 1
