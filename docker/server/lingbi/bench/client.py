"""A process that simulates several people: each asks the next question when the last one is answered."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import httpx

from lingbi.bench.questions import Questions, Turn

TIMEOUT_S = 600
HEAD, END = "data: ", "[DONE]"


@dataclass(frozen=True)
class Target:
    """A server: base URL (without /v1), key or None, model id. others: base URLs of more that share the people with it."""

    url: str
    key: str | None
    model: str
    others: tuple[str, ...] = ()

    def of(self, person: int) -> str:
        """The base URL that the person of this number asks, in all of their conversations."""
        urls = (self.url, *self.others)
        return urls[person % len(urls)]


@dataclass
class Answer:
    """The times of one answer's tokens, in seconds; error: why there is no answer."""

    first_s: float = 0.0
    total_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    text: str = ""
    error: str | None = None


def ask_all(
    target: Target,
    kind: str,
    people: range,
    talks: int,
    tokens: int,
    seed: int,
    fixed_length: bool,
    begin: Barrier,
) -> tuple[float, float, list[Answer]]:
    """(start, end, answers) of the people of these numbers with `talks` conversations each; runs in a separate process.

    It waits for `begin` when everything is prepared. Times are of the monotonic clock, which all processes share.
    """
    questions = [
        Questions(kind, target.model, tokens, seed * 1000 + place, fixed_length) for place in range(len(people))
    ]
    prepared = [[asker.next_talk() for _ in range(talks)] for asker in questions]
    return asyncio.run(_ask_together(target, people, questions, prepared, begin))


def ask_once(target: Target) -> Answer:
    """The answer to one question about an image, outside all rounds."""
    asker = Questions("image", target.model, 1, 0, True)

    async def ask_alone() -> Answer:
        async with _client(target, target.url) as client:
            return await ask(client, asker.body([user(asker.next_talk()[0])]))

    return asyncio.run(ask_alone())


def _client(target: Target, url: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits, trust_env=False)


async def _ask_together(
    target: Target, people: range, questions: list[Questions], prepared: list[list[list[Turn]]], begin: Barrier
) -> tuple[float, float, list[Answer]]:
    async with AsyncExitStack() as stack:
        urls = dict.fromkeys(map(target.of, people))
        clients = {url: await stack.enter_async_context(_client(target, url)) for url in urls}
        askers = [
            (clients[target.of(person)], asker, talks)
            for person, asker, talks in zip(people, questions, prepared, strict=True)
        ]
        # Not timed: connections, imports, and the first question about an image that is asked about again.
        await asyncio.gather(*(client.get("/v1/models") for client, *_ in askers))
        if questions[0].kind == "repeat":
            await asyncio.gather(*(ask(client, asker.body([user(talks[0][0])])) for client, asker, talks in askers))
        begin.wait()
        start = time.monotonic()
        talking = [_talk(client, asker, talks) for client, asker, talks in askers]
        answers = [answer for answers in await asyncio.gather(*talking) for answer in answers]
        return start, time.monotonic(), answers


async def _talk(client: httpx.AsyncClient, questions: Questions, talks: list[list[Turn]]) -> list[Answer]:
    answers: list[Answer] = []
    for turns in talks:
        messages: list[dict[str, Any]] = []
        for turn in turns:
            messages.append(user(turn))
            answers.append(await ask(client, questions.body(messages)))
            messages.append({"role": "assistant", "content": answers[-1].text})
    return answers


def user(content: Turn) -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": content}


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Answer:
    """Ask one question and time its streamed answer."""
    answer, start = Answer(), time.monotonic()
    last = None
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            # stock lmdeploy answers errors with 200 and JSON
            if response.status_code != 200 or "event-stream" not in response.headers.get("content-type", ""):
                answer.error = f"{response.status_code} {(await response.aread())[:200]!r}"
                return answer
            async for line in response.aiter_lines():
                piece = _piece(line)
                if piece is None:
                    continue
                now = time.monotonic()
                if last is None:
                    answer.first_s = now - start
                else:
                    answer.gaps_s.append(now - last)
                last = now
                answer.text += piece
    except httpx.HTTPError as error:
        answer.error = repr(error)
    answer.total_s = time.monotonic() - start
    if last is None and not answer.error:
        answer.error = "an answer without tokens"
    return answer


def _piece(line: str) -> str | None:
    """The text in one line of a stream, "" for a token that makes none yet, None for a line without a token.

    Random weights generate many tokens that are not text, so the engine's tokens are timed.
    """
    if not line.startswith(HEAD) or line[len(HEAD) :] == END:
        return None
    choices = json.loads(line[len(HEAD) :]).get("choices")
    return choices[0]["delta"].get("content") if choices else None
