"""Requests that are begun and never ended: others are answered meanwhile, and the log keeps what is worth reading."""

import json
import socket

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.gateway.conftest import running_gateway
from tests.load.half_requests import half_request, measure

HALF = half_request(0, is_tls=False)


@pytest.fixture
def gateway(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], UI=server.address) as found:
        yield found


def test_4300_half_requests_of_one_address_hold_nobody_up(gateway):
    found = measure(gateway, 4300, HALF, seconds=6)
    assert found.is_within_bounds(), found
    assert found.lines < 0.05 * found.begun, found


def connection(gateway, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    client.sendall(sent)
    return client


def test_half_requests_leave_few_lines_and_whole_ones_leave_all(gateway):
    waiting = [connection(gateway, HALF) for _ in range(200)]  # until the gateway's time is up
    for _ in range(200):
        connection(gateway, HALF).close()
    for client in waiting:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    for number in range(20):
        assert httpx.get(f"{gateway.url}/v1/models/{number}").status_code == 200
        assert httpx.get(f"{gateway.inner_url}/v1/inner/{number}").status_code == 200
        assert httpx.get(f"{gateway.url}/a/%2f{number}").status_code == 400
    assert connection(gateway, b"no http\r\n\r\n").recv(12) == b"HTTP/1.1 400"
    assert wait_until(lambda: gateway.log().count('"status":"400"') > 20, 5), gateway.log()
    statuses = [json.loads(line)["status"] for line in gateway.log().splitlines() if line.startswith("{")]
    assert statuses.count("200") == 40 and 21 <= statuses.count("400") <= 31 and statuses.count("408") <= 10, statuses
