"""Lines with large bodies wait, unread, until all bodies leave room for theirs, and are asked once."""

import asyncio
import time

import pytest

from lingbi.api_errors import BadRequest
from lingbi.batch import claims
from lingbi.http import chat
from lingbi.http.admission.bodies import BodyRoom
from lingbi.http.app import create_app
from lingbi.http.batch import runner
from lingbi.http.readiness import READY
from lingbi.turns import Asker
from tests.server.batch.test_claims import counts, output
from tests.server.batch.test_lines import line
from tests.server.conftest import NoEngine
from tests.server.http.batch.test_runner import kept, run, submitted

ROOM, LARGE, LINES = 400_000, 90_000, 30  # of the room, one key may have three quarters: three of them


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    for name, seconds in (("LOOK_S", 0.05), ("IDLE_LOOK_S", 0.05), ("AGAIN_S", 0.2)):
        monkeypatch.setattr(runner, name, seconds)


@pytest.fixture
def inside(monkeypatch):
    """How many lines were inside whenever one came in; each is refused after a while, for a reason of its own."""
    now, seen = set(), []

    async def refuse(*_, **__):
        now.add(asyncio.current_task())
        seen.append(len(now))
        await asyncio.sleep(0.02)
        now.discard(asyncio.current_task())
        raise BadRequest("this is enough")

    monkeypatch.setattr(chat, "chat_prompt", refuse)
    return seen


@pytest.fixture
def opened(store, monkeypatch):
    """The ids of the files that were opened."""
    ids, real = [], store.storage.open
    monkeypatch.setattr(store.storage, "open", lambda file_id: ids.append(file_id) or real(file_id))
    return ids


def asks(custom_id: str, content) -> bytes:
    return line(custom_id, body={"model": "model", "messages": [{"role": "user", "content": content}]})


def check_asked_once(service, store, lines: bytes, inside: list) -> None:
    service.body_room = room = BodyRoom(ROOM)
    batch = run(service, store, submitted(store, lines), create_app(service))
    assert counts(store.database, batch["id"]) == (LINES, 0, LINES)
    told = {one["response"]["status_code"] for one in output(store.database, batch["id"], "errors")}
    assert told == {400} and len(inside) == LINES and max(inside) == 3
    assert not room.held and not room.weights


def test_each_line_is_read_once(service, store, inside, opened):
    lines = b"".join(asks(str(number), "x" * LARGE) for number in range(LINES))
    check_asked_once(service, store, lines, inside)
    assert opened == ["file-1"] * (1 + LINES)


def test_each_picture_that_is_named_by_its_file_is_read_once(service, store, inside, opened):
    picture = kept(store, b"\x89PNG" + bytes(LARGE * 3 // 4), "vision")
    part = {"type": "image_url", "image_url": {"url": picture}}
    lines = b"".join(asks(str(number), [part]) for number in range(LINES))
    check_asked_once(service, store, lines, inside)
    assert opened.count(picture) == LINES


def test_lines_that_wait_for_room_are_given_back_when_their_worker_drains(service, store, inside, opened):
    service.store, service.body_room = store, BodyRoom(ROOM)
    room, others = service.body_room, {Asker("somebody"): ROOM // 2, Asker("somebody else"): ROOM // 3}
    for other, size in others.items():
        room.take(other, size)
    batch_id = submitted(store, b"".join(asks(str(number), "x" * LARGE) for number in range(3)))

    async def drain() -> None:
        service.take_engine(NoEngine(), 4)
        service.readiness.enter(READY)
        one = runner.Runner(service, create_app(service), store, "w")
        running = asyncio.create_task(one.run())
        until = time.monotonic() + 60
        while len(room.waiting) < 3:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        service.takes_lines = False
        one.changed.set()
        await running

    asyncio.run(drain())
    with store.database.read() as connection:
        assert claims.running(connection, batch_id) == 0
    assert opened == ["file-1"] and room.held.keys() == {other.name for other in others} and not room.waiting
