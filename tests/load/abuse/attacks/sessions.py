"""The page's queue: large bodies, sessions that nobody reads, and histories of 100 000 turns."""

import json
import uuid

import httpx

from tests.load.abuse import gradio_page
from tests.load.abuse.attackers import Target

JOIN = "/gradio_api/queue/join"
TEXT_BYTES, TURNS = 31 << 20, 100_000
SESSION = "session-of-nobody"
WORKERS = 6


async def attack(target: Target) -> None:
    turn = {"role": "user", "metadata": None, "content": [{"type": "text", "text": "x"}], "options": None}
    bodies = [
        asked(target, text, history)
        for text, history in (("hello", []), ("x" * TEXT_BYTES, []), ("hello", [turn] * TURNS))
    ]
    await target.begin()
    async with target.visitor() as visitor:

        async def once(number: int) -> httpx.Response:
            before, after = bodies[number % len(bodies)]
            content = before + uuid.uuid4().hex.encode() + after
            return await visitor.post(JOIN, content=content, headers={"Content-Type": "application/json"})

        await target.repeat(WORKERS, once)


def asked(target: Target, text: str, history: list) -> tuple[bytes, bytes]:
    """A question's body in two parts: a session's name belongs between them. It is made once, since it costs the attacker too."""
    question = gradio_page.question(target.event, text, [], 0, SESSION)
    question["data"][1] = history
    before, _, after = json.dumps(question).encode().partition(SESSION.encode())
    return before, after
