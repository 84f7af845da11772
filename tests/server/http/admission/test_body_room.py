"""The memory of all bodies is bounded, and one key's large ones leave room for another's."""

import asyncio
import json
import random

import pytest

from lingbi.api_errors import Busy
from lingbi.http.admission.bodies import BodyRoom, HeldBody
from lingbi.turns import Asker
from tests.load.fuzz import CHAT, application

MIB = 1 << 20
A, B, PAGE = Asker("a"), Asker("b"), Asker("page", 64)


def held(room: BodyRoom, asker: Asker, size: int) -> list[HeldBody]:
    """As many bodies of this size as the room takes of a key."""
    bodies = []
    while True:
        body = HeldBody(room, asker)
        try:
            body.grow_to(size)
        except Busy:
            return bodies
        bodies.append(body)


def test_alone_a_key_has_three_quarters_and_another_finds_the_rest():
    room = BodyRoom(64 * MIB)
    assert len(held(room, A, 4 * MIB)) == 12
    assert len(held(room, B, 4 * MIB)) == 4
    assert not held(room, A, 1) and not held(room, B, 1)


def test_a_body_of_half_of_all_is_taken_of_a_key_that_is_alone():
    room = BodyRoom(64 * MIB)
    HeldBody(room, A).grow_to(32 * MIB)
    with pytest.raises(Busy, match="LINGBI_BODIES_MIB"):
        HeldBody(room, A).grow_to(32 * MIB)


def test_what_ends_makes_room():
    room = BodyRoom(64 * MIB)
    bodies = held(room, A, 4 * MIB)
    for body in bodies:
        body.end()
        body.end()
    assert not room.held and not room.weights and len(held(room, A, 4 * MIB)) == len(bodies)


def test_a_heavier_key_has_more():
    room = BodyRoom(64 * MIB)
    held(room, A, MIB)
    assert len(held(room, PAGE, MIB)) == 16
    room = BodyRoom(64 * MIB)
    assert len(held(room, PAGE, MIB)) == 51  # four fifths, since one more key might come


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_and_goes_the_bound_holds_and_who_is_within_a_share_is_refused_by_the_bound_alone(seed):
    rng = random.Random(seed)
    room = BodyRoom(1000)
    askers = [Asker(name, rng.choice((4, 16, 64))) for name in "abcde"]
    bodies: list[HeldBody] = []
    for _ in range(600):
        if bodies and rng.random() < 0.4:
            bodies.pop(rng.randrange(len(bodies))).end()
            continue
        body, size = HeldBody(room, rng.choice(askers)), rng.randrange(1, 120)
        before = room.held.total()
        try:
            body.grow_to(size)
            bodies.append(body)
        except Busy:
            assert before + size > 750, "a quarter at most is kept free"
            is_small = room.held[body.asker.name] + size <= 1000 * body.asker.weight // (
                4 * 64 + 16 + body.asker.weight
            )
            assert not is_small or before + size > 1000
        assert room.held.total() == sum(body.size for body in bodies) <= 1000
    for body in bodies:
        body.end()
    assert not room.held and not room.weights


def test_who_waits_for_room_goes_in_the_order_of_its_key_and_leaves_nothing_when_cancelled():
    async def story() -> list:
        room, came = BodyRoom(1000), []
        bodies = held(room, A, 250)
        assert len(bodies) == 3

        async def come(name: str, asker: Asker, size: int) -> None:
            await HeldBody(room, asker).wait(size)
            came.append(name)

        async def settle() -> list:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return list(came)

        large, small, other = (
            asyncio.create_task(come(*turn)) for turn in (("large", A, 300), ("small", A, 1), ("other", B, 200))
        )
        seen = [await settle()]
        large.cancel()
        seen += [await settle()]
        bodies.pop().end()
        seen += [await settle()]
        late = asyncio.create_task(come("late", A, 300))
        await settle()
        bodies.pop().end()
        late.cancel()  # it has its room already, and has not gone on yet
        seen += [await settle()]
        assert room.held == {"a": 251, "b": 200} and not room.waiting
        await asyncio.gather(large, small, other, late, return_exceptions=True)
        return seen

    assert asyncio.run(story()) == [["other"], ["other"], ["other", "small"], ["other", "small"]]


class Sender:
    """A client whose body is still on its way: it announces it, or sends a part of it, and waits."""

    def __init__(self, app, key: str, announced: int | None, sent: int = 0) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        headers += [(b"content-length", str(announced).encode())] if announced is not None else []
        self.scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b""}
        self.scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "client": ("test", 1)}
        self.scope |= {"server": ("test", 80), "asgi": {"version": "3.0"}, "root_path": ""}
        self.parts = [{"type": "http.request", "body": bytes(sent), "more_body": True}] if sent else []
        self.status, self.leaves, self.body = None, asyncio.Event(), b""
        self.task = asyncio.create_task(app(self.scope, self.receive, self.send))

    async def receive(self) -> dict:
        if self.parts:
            return self.parts.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        self.status = self.status or message.get("status")
        self.body += message.get("body", b"")


def test_bodies_that_are_still_arriving_count(tmp_path):
    """Announced or not; another key is let in meanwhile, and all is given back at the end."""

    async def story():
        app, key = await application(tmp_path, max_body_mib=8, bodies_mib=32)
        room = app.app.service.body_room
        senders = [Sender(app, key, 8 * MIB) for _ in range(3)] + [Sender(app, key, None, 2 * MIB)]
        await asyncio.sleep(0.1)
        assert [sender.status for sender in senders] == [None] * 3 + [429]
        error = json.loads(senders[-1].body)["error"]
        assert error["code"] == "queue_full" and "24 of them of this key" in error["message"]
        assert room.held == {"default": 24 * MIB}
        for sender in senders:
            sender.leaves.set()
        await asyncio.gather(*(sender.task for sender in senders))
        assert not room.held

    asyncio.run(story())
