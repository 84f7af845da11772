"""A worker with the demo model: long streams of one key fill it, and another key is answered all the same."""

import asyncio
import json
import time
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.key_file import digest
from lingbi.accounts.ledger.spool import Spool
from lingbi.accounts.quotas.holds import Holds
from lingbi.http.admission.quotas import Quotas
from tests.keys import add_to_file
from tests.load.fuzz import CHAT, MODEL, application

RUNNING, QUEUED = 4, 6
LIMIT = RUNNING + QUEUED
FIRST_TOKEN_S, WAIT_S = 5, 20  # a token of five answers takes a few hundredths of a second on two cores
STREAM = {"model": MODEL, "messages": "hello", "stream": True, "max_tokens": 3000, "ignore_eos": True}


class Stream:
    """A client's request for a long answer, which it leaves when it is told to."""

    def __init__(self, app, key: str) -> None:
        self.key, self.status, self.body = key, None, b""
        self.began = self.left = None
        self._leaves = asyncio.Event()
        self._body = [{"type": "http.request", "body": json.dumps(STREAM).encode()}]
        self.asked = time.monotonic()
        self.task = asyncio.create_task(app(self._scope(), self._receive, self._send))

    def _scope(self) -> dict:
        headers = [(b"authorization", f"Bearer {self.key}".encode())]
        scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b""}
        scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "client": ("test", 1)}
        return scope | {"server": ("test", 80), "asgi": {"version": "3.0"}, "root_path": ""}

    async def _receive(self) -> dict:
        if self._body:
            return self._body.pop()
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict) -> None:
        self.status = self.status or message.get("status")
        self.body += message.get("body", b"")
        if self.began is None and b"data: " in self.body:
            self.began = time.monotonic()

    @property
    def sentence(self) -> str:
        return json.loads(self.body)["error"]["message"]

    async def leave(self) -> None:
        self._leaves.set()
        await asyncio.wait_for(self.task, WAIT_S)


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something. Fails after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Lab:
    """A worker, two keys, and the streams that were begun."""

    def __init__(self, app, key: str, other: str) -> None:
        self.app, self.key, self.other = app, key, other
        self.service = app.app.service
        self.streams: list[Stream] = []

    def ask(self, key: str, count: int = 1) -> list[Stream]:
        found = [Stream(self.app, key) for _ in range(count)]
        self.streams += found
        return found

    def began(self, streams: list[Stream]) -> list[Stream]:
        return [stream for stream in streams if stream.began]


@pytest.fixture
def lab(tmp_path):
    """A function that runs a story in a lab, and sees that nothing is left of it."""

    def run(story) -> None:
        async def told() -> None:
            app, key = await application(tmp_path, running=RUNNING, queue_limit=QUEUED)
            service = app.app.service
            found = Lab(app, key, add_to_file(service.settings.hashed_key_file(), "other"))
            service.keys.look()
            try:
                await story(found)
            finally:
                for stream in found.streams:
                    await stream.leave()
            places = service.generator.places
            await until(lambda: len(places.free) == RUNNING + 1, "an instance was lost")
            assert service.admission.inside == 0 and not places.turns.weights

        asyncio.run(told())

    return run


def test_a_key_that_fills_everything_keeps_no_other_key_waiting(lab):
    async def story(lab: Lab) -> None:
        many = lab.ask(lab.key, LIMIT)
        places = lab.service.generator.places
        await until(lambda: len(lab.began(many)) == RUNNING and len(places.turns) == QUEUED, "alone it has not all")
        (refused,) = lab.ask(lab.key)
        await asyncio.wait_for(refused.task, WAIT_S)
        assert refused.status == 429 and "LINGBI_QUEUE_LIMIT" in refused.sentence

        (newcomer,) = lab.ask(lab.other)
        await until(lambda: newcomer.began or newcomer.status, "the newcomer waits")
        assert newcomer.status == 200, newcomer.body
        await until(lambda: bool(newcomer.began), "the newcomer has no token")
        assert newcomer.began - newcomer.asked < FIRST_TOKEN_S
        running = [stream for stream in lab.began(many) if not stream.task.done()]
        assert len(running) == RUNNING  # none of those that had begun was ended for it
        gone = [stream for stream in many if stream.status == 429]
        assert len(gone) == 1 and "another key's request took the place" in gone[0].sentence

        (second,) = lab.ask(lab.other)
        await until(lambda: len([stream for stream in many if stream.status == 429]) == 2, "it takes no second place")
        for stream in running[:2]:
            await stream.leave()
        await until(lambda: bool(second.began), "the other's second waits behind the first key's")
        assert len(lab.began(many)) == RUNNING  # the first key's own next one came later, if at all

    lab(story)


def test_a_request_of_a_key_that_has_nothing_left_takes_nobodys_place(lab, tmp_path):
    async def story(lab: Lab) -> None:
        database = Database(parse_url(f"sqlite:///{tmp_path}/quotas.db"))
        database.bring_up_to_date()
        lab.service.spool = Spool(tmp_path / "journals", 1 << 20)
        lab.service.quotas = Quotas(Holds(database, "worker", ZoneInfo("UTC")), "local")
        limits = (Limit("key", "spent", "tokens", "day", 0),)
        lab.service.keys.keys[digest(b"spent")] = KeyFacts("spent", limits=limits)
        await asyncio.wait_for(lab.ask("spent")[0].task, WAIT_S)  # now it is known

        many = lab.ask(lab.key, LIMIT)
        places = lab.service.generator.places
        await until(lambda: len(lab.began(many)) == RUNNING and len(places.turns) == QUEUED, "alone it has not all")
        (refused,) = lab.ask("spent")
        await asyncio.wait_for(refused.task, WAIT_S)
        assert refused.status == 429 and "may use no tokens" in refused.sentence
        assert not [stream for stream in many if stream.status == 429]

    lab(story)


def test_keys_that_all_wait_have_answers_by_their_weights(lab):
    async def story(lab: Lab) -> None:
        for name, weight in (("light", 1), ("heavy", 3)):
            lab.service.keys.keys[digest(name.encode())] = KeyFacts(name, weight=weight)
        light = lab.ask("light", RUNNING + 1)
        await until(lambda: len(lab.began(light)) == RUNNING, "alone it has not all")
        heavy = lab.ask("heavy", RUNNING)
        await until(lambda: len(lab.began(heavy)) == 1, "the newcomer waits")
        first, *others, last = lab.began(light)
        await first.leave()  # the newcomer was one more than places are there
        for number, stream in enumerate(others, 2):
            await stream.leave()
            await until(lambda number=number: len(lab.began(heavy)) == number, "the heavier key has not its share")
        assert len(lab.began(light)) == RUNNING  # three answers of one run, and one of the other
        await last.leave()
        await until(lambda: len(lab.began(light)) == RUNNING + 1, "the lighter key has not its share")
        assert len(lab.began(heavy)) == RUNNING - 1

    lab(story)
