"""The honest side, in a process of its own: twelve visitors and keys that ask, wait for the answer, read it and ask again.

`python -m tests.load.abuse.visitors` takes its task as a line of JSON, says "ready", begins at the next line and
prints all answers as a line of JSON when the seconds of the task are over.
"""

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import httpx

from lingbi.images.scenes import Scene, find_fault
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES, body
from tests.load.abuse import gradio_page
from tests.load.abuse.addresses import headers_of, source_of
from tests.load.abuse.bounds import MAX_WAIT_S
from tests.load.abuse.stack import TEXT_TOKENS, text_body
from tests.load.abuse.trust import AUTHORITIES

PICTURE, TEXT = "picture", "text"
RIGHT, WRONG, FAILED = "right", "wrong", "failed"
# (way, what about) of each of the twelve.
KINDS = (
    *[("stream", PICTURE)] * 3,
    ("whole", PICTURE),
    *[("stream", TEXT)] * 3,
    ("whole", TEXT),
    *[("page", PICTURE)] * 2,
    *[("page", TEXT)] * 2,
)
PICTURE_TOKENS = 32


class Refused(Exception):
    """The server did not answer; the message says what it said."""


FAULTS = (httpx.HTTPError, Refused, gradio_page.PageRefused, asyncio.TimeoutError, ValueError, LookupError)


@dataclass(frozen=True)
class Answer:
    """What came of a question: when it was asked, its first text and its end on the monotonic clock; outcome and why."""

    way: str
    about: str
    asked: float
    first: float | None
    ended: float
    outcome: str
    fault: str | None = None


class Visitor:
    """One of the twelve, with an address of its own where that can be."""

    def __init__(self, number: int, task: dict):
        self.task, self.number = task, number
        self.way, self.about = KINDS[number]
        self.rng = random.Random(number)
        self.cookies: dict[str, str] = {}
        self.event: int | None = None

    def client(self) -> httpx.AsyncClient:
        """A new one for each question, so that every question needs a connection."""
        addresses, number = self.task["addresses"], self.number + 1
        key = self.task["keys"][self.number % len(self.task["keys"])]
        return httpx.AsyncClient(
            base_url=self.task["url"],
            headers=headers_of(addresses, number) | ({} if self.way == "page" else {"Authorization": f"Bearer {key}"}),
            cookies=self.cookies,
            timeout=MAX_WAIT_S,
            transport=httpx.AsyncHTTPTransport(verify=AUTHORITIES, local_address=source_of(addresses, number)),
        )

    async def visit(self, until: float) -> list[Answer]:
        answers = []
        await asyncio.sleep(self.rng.random() * self.task["pause_s"])
        while time.monotonic() < until:
            answers.append(await self.one())
            await asyncio.sleep(self.task["pause_s"] * (0.5 + self.rng.random()))
        return answers

    async def one(self) -> Answer:
        """Ask about a scene, or one of the texts, and judge the answer by its content."""
        scene, text = self.rng.choice(SCENES), self.rng.choice(sorted(self.task["texts"]))
        asked, first, said = time.monotonic(), None, ""

        async def listen() -> None:
            nonlocal first, said
            async for piece in self.pieces(scene, text):
                first, said = first or time.monotonic(), piece

        try:
            await asyncio.wait_for(listen(), MAX_WAIT_S)
            fault = find_fault("things", scene, said) if self.about == PICTURE else self.differs(text, said)
            outcome = WRONG if fault else RIGHT
        except FAULTS as error:
            outcome, fault = FAILED, f"{type(error).__name__} {error}"[:200]
        return Answer(self.way, self.about, asked, first, time.monotonic(), outcome, fault)

    def differs(self, text: str, said: str) -> str | None:
        expected = self.task["texts"][text]
        return None if said == expected else f"{said!r} instead of {expected!r}"

    def pieces(self, scene: Scene, text: str) -> AsyncIterator[str]:
        """The answer as it grows."""
        if self.way == "page":
            return self.from_page(scene, text)
        model = {"model": self.task["model"]}
        is_picture, options = self.about == PICTURE, {"stream": self.way == "stream"}
        asked = body(model, [turn(QUESTION, data_url(scene))], max_tokens=PICTURE_TOKENS, **options)
        return self.from_api(asked if is_picture else text_body(model["model"], text, **options))

    async def from_api(self, asked: dict) -> AsyncIterator[str]:
        async with self.client() as client, client.stream("POST", CHAT, json=asked) as response:
            if response.status_code != 200:
                raise Refused(f"{response.status_code} {(await response.aread()).decode(errors='replace')[:160]}")
            if not asked["stream"]:
                yield json.loads(await response.aread())["choices"][0]["message"]["content"]
                return
            said, line = "", ""
            async for line in filled(response.aiter_lines()):
                if line != "[DONE]":
                    said += json.loads(line)["choices"][0]["delta"].get("content") or ""
                if said:
                    yield said
            if line != "[DONE]":
                raise Refused(f"the stream ended with {line[:100]!r}")

    async def from_page(self, scene: Scene, text: str) -> AsyncIterator[str]:
        async with self.client() as client:
            if self.event is None:
                login = self.task["login"]
                self.event = await gradio_page.open_page(client, tuple(login) if login else None)
            paths, asked, tokens = [], text, TEXT_TOKENS
            if self.about == PICTURE:
                data = base64.b64decode(data_url(scene).partition(",")[2])
                paths, asked, tokens = [await gradio_page.upload(client, "scene.png", data)], QUESTION, PICTURE_TOKENS
            self.cookies = dict(client.cookies)
            async for said in gradio_page.answers(client, gradio_page.question(self.event, asked, paths, tokens)):
                yield said


async def filled(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The data of a stream's events."""
    async for line in lines:
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


async def visit_all(task: dict) -> list[Answer]:
    until = time.monotonic() + task["seconds"]
    of_all = await asyncio.gather(*(Visitor(number, task).visit(until) for number in range(len(KINDS))))
    return [answer for answers in of_all for answer in answers]


def main() -> None:
    task = json.loads(sys.stdin.readline())
    for scene in SCENES:
        data_url(scene)  # drawing is not what is measured
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps([asdict(answer) for answer in asyncio.run(visit_all(task))]), flush=True)


if __name__ == "__main__":
    main()
