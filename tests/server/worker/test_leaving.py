"""When a process that others take over from has nothing left to answer."""

from types import SimpleNamespace

import pytest

from lingbi.worker.server import LEAST_LOOKS, LINGER_LOOKS, DrainingServer


@pytest.fixture
def server():
    service = SimpleNamespace(
        admission=SimpleNamespace(inside=0), waking=None, takes_lines=True, running_lines=lambda: 0
    )
    found = DrainingServer(None, service, "127.0.0.1", 0, 60, is_left_to_others=True)
    found.servers = []
    return found


def looks(server, most: int = 100) -> int:
    """How often it looks before it leaves."""
    return next((count for count in range(1, most) if server._has_left()), most)


def test_it_stays_until_it_is_told_to_leave_and_while_a_request_is_inside(server):
    assert looks(server) == 100
    server.leave(60)
    server.service.admission.inside = 1
    assert looks(server) == 100
    server.service.admission.inside, server.service.running_lines = 0, lambda: 1
    assert looks(server) == 100 and not server.service.takes_lines  # lines of batches are given back first
    server.service.running_lines = lambda: 0
    assert looks(server) == LEAST_LOOKS


def test_a_connection_without_a_request_is_given_time_for_one(server):
    server.leave(60)
    server.server_state.connections.add(object())
    assert looks(server, LINGER_LOOKS) == LINGER_LOOKS
    server.service.admission.inside = 1
    assert not server._has_left()
    server.service.admission.inside = 0
    assert looks(server) == LINGER_LOOKS


def test_what_does_not_end_in_time_is_cut_off(server, caplog):
    server.leave(-1)
    server.service.admission.inside = 2
    assert server._has_left() and "2 requests are cut off" in caplog.text


def test_each_connection_is_for_one_request(server):
    assert ("Connection", "close") in server.config.headers
    kept = DrainingServer(None, server.service, "127.0.0.1", 0, 60)
    assert kept.config.headers == []
