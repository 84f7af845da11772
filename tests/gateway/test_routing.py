"""Which server is asked, when another one is, and that streams and bodies pass as they come."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_gateway.configuration import RETRY_WITHIN_S
from tests.client import CHAT, SCENES, fault, question
from tests.conftest import free_port
from tests.gateway.conftest import Breaker, running_gateway

MIB = 1 << 20


def post(gateway, body=b"{}", **options) -> httpx.Response:
    return httpx.post(gateway.url + CHAT, content=body, timeout=30, **options)


def address(worker: dict) -> str:
    return worker["url"].removeprefix("http://")


def ask(gateway, worker: dict, scene=SCENES[0]) -> str | None:
    """What is wrong with the answer to a picture question through the gateway."""
    headers = {"Authorization": f"Bearer {worker['key']}"}
    response = httpx.post(gateway.url + CHAT, json=question(worker, scene), headers=headers, timeout=60)
    return fault(scene, response)


def test_one_real_server(workers):
    with running_gateway([address(workers[0])]) as gateway:
        assert [ask(gateway, workers[0], scene) for scene in SCENES[:4]] == [None] * 4
        assert httpx.get(gateway.url + "/ready").json()["status"] == "ready"


def test_three_real_servers_share_the_work(workers):
    with running_gateway([address(worker) for worker in workers]) as gateway, ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda number: ask(gateway, workers[0], SCENES[number]), range(36))) == {None}
        asked = {line["server"] for line in gateway.requests(CHAT, 36)}
        assert asked == {address(worker) for worker in workers}


def test_a_dead_server_is_passed_over(workers):
    dead = f"127.0.0.1:{free_port()}"
    with running_gateway([dead, *(address(worker) for worker in workers[:2])]) as gateway:
        assert {ask(gateway, workers[0]) for _ in range(12)} == {None}
        tried = [line["server"] for line in gateway.requests(CHAT, 12) if dead in line["server"]]
        assert len(tried) <= 2  # one of nginx's processes finds out, the others know


def test_a_stopped_server_holds_up_only_what_it_has(workers):
    """A real server whose process stands still: connections are taken, nothing is answered.

    Its answers are waited for longer than another server is tried, so what it has got is lost and seen as a 504.
    """
    servers = [address(worker) for worker in workers]
    with running_gateway(servers, ANSWER_TIMEOUT_S=RETRY_WITHIN_S + 1) as gateway, ThreadPoolExecutor(6) as pool:
        workers[1]["process"].send_signal(19)
        try:
            found = list(pool.map(lambda number: ask(gateway, workers[0], SCENES[number]), range(24)))
        finally:
            workers[1]["process"].send_signal(18)
        bad = [text for text in found if text]
        assert 1 <= len(bad) <= 3 and all(text.startswith("504") and "answer_timeout" in text for text in bad)


@contextlib.contextmanager
def silent_host():
    """HOST:PORT that answers no SYN: a listener whose backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        with pytest.raises(TimeoutError):
            socket.create_connection((host, port), timeout=0.5)
        yield f"{host}:{port}"


def test_a_host_that_answers_no_syn_is_passed_over(upstreams):
    first, second = upstreams(2)
    with silent_host() as silent, running_gateway([silent, first.address, second.address]) as gateway:
        began = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(lambda _: post(gateway).status_code, range(24))) == {200}
        assert time.monotonic() - began < 8  # 2 s for a connection, and then it is left out
        assert any(line["server"].startswith(silent) for line in gateway.requests(CHAT, 24))


def test_a_slow_server_gets_less(upstreams):
    """One slow of three: its answers come, and the others take what comes meanwhile."""
    servers = upstreams(3)
    servers[2].behaviour = "slow"
    addresses = [server.address for server in servers]
    with running_gateway(addresses, PROCESSES=1) as gateway, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: post(gateway), range(60)))
    assert {answer.status_code for answer in found} == {200}
    assert 1 <= len(servers[2].seen) <= 12, [len(server.seen) for server in servers]


@pytest.mark.parametrize("fault", ["refuse", "break"])
def test_a_server_that_is_not_ready_is_passed_over_with_the_whole_body(upstreams, fault):
    first, second, third = upstreams(3)
    third.behaviour, breaker = "refuse", Breaker()
    bad = breaker if fault == "break" else third
    with running_gateway([first.address, second.address, bad.address]) as gateway:
        found = [post(gateway, b"x" * 5 * MIB) for _ in range(6)]
    breaker.stop()
    assert [answer.status_code for answer in found] == [200] * 6
    assert {answer.json()["bytes"] for answer in found} == {5 * MIB}
    assert {seen["bytes"] for seen in bad.seen} == {5 * MIB}


def test_only_one_other_server_is_tried(upstreams):
    servers = upstreams(3)
    for server in servers:
        server.behaviour = "refuse"
    with running_gateway([server.address for server in servers]) as gateway:
        answer = post(gateway)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "7"
    assert sum(len(server.seen) for server in servers) == 2


def test_nothing_is_tried_again_once_the_client_got_a_byte(upstreams):
    servers = upstreams(2)
    for server in servers:
        server.behaviour = "break later"
    with running_gateway([server.address for server in servers]) as gateway:
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", gateway.url + CHAT, content=b"{}") as answer,
        ):
            assert answer.status_code == 200
            for _ in answer.iter_bytes():
                pass
        assert sum(len(server.seen) for server in servers) == 1


def test_a_slow_answer_is_not_asked_for_again(upstreams):
    """A server that took the question and breaks off late may be at it still: nobody else is asked."""
    servers = upstreams(2)
    for server in servers:
        server.behaviour = "hang"
    with running_gateway([server.address for server in servers], ANSWER_TIMEOUT_S=6) as gateway:
        answer = post(gateway)
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "answer_timeout"
    assert sum(len(server.seen) for server in servers) == 1


def test_no_server_at_all_is_a_sentence(upstreams):
    with running_gateway([f"127.0.0.1:{free_port()}"]) as gateway:
        answer = post(gateway)
        page = httpx.get(gateway.url)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "not_ready"
    assert answer.headers["retry-after"] == "5"
    assert page.status_code == 503 and "正在启动" in page.text and "starting" in page.text


def test_each_chunk_comes_when_it_was_sent(upstreams):
    """Before the fourth after it is sent, which a busy machine delays as well."""
    (server,) = upstreams(1)
    server.behaviour = "stream"
    with (
        running_gateway([server.address]) as gateway,
        httpx.stream("POST", gateway.url + CHAT, content=b"{}") as answer,
    ):
        came = [time.monotonic() for line in answer.iter_lines() if line]
    assert len(came) == len(server.sent) == 50
    late = [number for number, fourth in enumerate(server.sent[4:]) if came[number] > fourth]
    assert late == []


def test_a_client_that_leaves_is_noticed_by_the_server(upstreams):
    (server,) = upstreams(1)
    server.behaviour = "stream"
    with running_gateway([server.address]) as gateway:
        with httpx.stream("POST", gateway.url + CHAT, content=b"{}") as answer:
            next(answer.iter_lines())
        assert wait_until(lambda: server.left == 1, 5)


def test_an_upload_to_the_page_passes_as_it_comes(upstreams):
    """The first half is with the page's server before the second is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        page = f"127.0.0.1:{listener.getsockname()[1]}"
        with running_gateway(["127.0.0.1:9"], UI=page) as gateway, socket.socket() as client:
            client.connect(("127.0.0.1", gateway.port))
            client.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
            client.sendall(b"x" * 100000)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                seen = b""
                while len(seen) < 100000:
                    seen += connection.recv(65536)


def test_connections_to_the_servers_are_kept(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], PROCESSES=1) as gateway:
        for _ in range(30):
            assert post(gateway).status_code == 200
    assert len(server.peers) <= 2


def test_a_reload_takes_another_server_and_breaks_no_stream(upstreams):
    first, second = upstreams(2)
    first.behaviour = "stream"
    with running_gateway([first.address]) as gateway:
        lines = []

        def listen():
            with httpx.stream("POST", gateway.url + CHAT, content=b"{}", timeout=30) as answer:
                lines.extend(line for line in answer.iter_lines() if line)

        listener = threading.Thread(target=listen)
        listener.start()
        time.sleep(1)
        file = gateway.folder / "servers" / "servers.conf"
        file.write_text(f"server {first.address} down;\nserver {second.address};\n")
        assert gateway.command("reload").returncode == 0
        time.sleep(1)
        assert {post(gateway).json()["name"] for _ in range(5)} == {second.name}
        file.write_text("server nonsense nonsense;\n")
        refused = gateway.command("reload")
        assert refused.returncode == 2 and "nonsense" in refused.stderr
        assert post(gateway).status_code == 200
        listener.join(20)
    assert len(lines) == 50
