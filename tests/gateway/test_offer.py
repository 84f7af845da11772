"""What /v1/models says of a model with many servers, some of them away or silent."""

import asyncio
import contextlib
import json
import time

import pytest

from lingbi_gateway.router import offer
from lingbi_gateway.router.decision import Model, Routes
from lingbi_gateway.router.offer import PATH, models
from tests.conftest import free_port

READY = json.dumps({"status": "ready", "model": "a", "phase": "ready"})


class Servers:
    """Servers in this process. asked: the paths; most: how many asked at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.now = self.most = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.decode().split()[1])
        await asyncio.sleep(0.02)
        writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(READY)}\r\n\r\n{READY}".encode())
        self.now -= 1
        writer.close()

    async def silence(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()


def shown(servers: Servers, ready: int = 0, away: int = 0, silent: int = 0) -> dict:
    """What is told of the model `a`; those that are away or silent stand first in the list."""

    async def run() -> dict:
        async with contextlib.AsyncExitStack() as stack:

            async def listening(handler) -> str:
                server = await stack.enter_async_context(await asyncio.start_server(handler, "127.0.0.1", 0))
                return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

            listed = [f"127.0.0.1:{free_port()}" for _ in range(away)]
            listed += [await listening(servers.silence) for _ in range(silent)]
            listed += [await listening(servers.answer) for _ in range(ready)]
            answer = await models(Routes({"a": Model("pool", tuple(listed))}), PATH, {})
            assert answer.status == 200, answer
            return json.loads(answer.body)["data"][0]["lingbi"]

    return asyncio.run(run())


def test_all_servers_of_a_model_are_counted_and_few_are_asked_at_once(monkeypatch):
    monkeypatch.setattr(offer, "AT_ONCE", 16)
    servers = Servers()
    found = shown(servers, ready=40)
    assert (found["servers"], found["ready"], found["state"]) == (40, 40, "ready")
    assert 1 < servers.most <= 16


def test_a_model_is_ready_though_the_first_servers_of_its_list_are_away():
    found = shown(Servers(), ready=1, away=20)
    assert (found["servers"], found["ready"], found["state"]) == (21, 1, "ready")


def test_silent_servers_keep_nobody_from_the_list():
    began = time.monotonic()
    assert shown(Servers(), ready=1, silent=10)["ready"] == 1
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("away", [0, 3])
def test_one_server_that_answers_judges_the_key(away):
    servers = Servers()
    shown(servers, ready=5, away=away)
    assert servers.asked.count(PATH) == 1 and servers.asked.count("/ready") == 5
