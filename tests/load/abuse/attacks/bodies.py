"""JSON that is dear to read: a million messages that are numbers, 29 MiB of tags, and lists in lists without end."""

import httpx

from tests.client import CHAT
from tests.load.abuse.attackers import Target

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
NUMBERS, TAGS_BYTES, DEPTH = 1_000_000, 29 << 20, 5_000_000
WORKERS = 6


async def attack(target: Target) -> None:
    requests = dear(target.model)
    await target.begin()
    async with target.client() as client:

        async def once(number: int) -> httpx.Response:
            path, content = requests[number % len(requests)]
            return await client.post(path, content=content)

        await target.repeat(WORKERS, once)


def dear(model: str) -> list[tuple[str, bytes]]:
    """(path, body) of each."""
    numbers = b"[" + b"12345," * (NUMBERS - 1) + b"1]"
    tags = b"<a>" * (TAGS_BYTES // 3)
    name = model.encode()
    return [
        (CHAT, b'{"model":"%s","messages":%s}' % (name, numbers)),
        (CHAT, b'{"model":"%s","messages":[{"role":"user","content":"%s"}]}' % (name, tags)),
        (CHAT, b'{"model":"%s","messages":%s' % (name, b"[" * DEPTH)),
        (CHAT, b'{"model":"%s","messages":[{"role":"user","content":%s}]}' % (name, numbers)),
        (COMPLETIONS, b'{"model":"%s","prompt":%s}' % (name, numbers)),
        (COMPLETIONS, b'{"model":"%s","prompt":"%s"}' % (name, tags)),
        (CHAT, b'{"a":' * (DEPTH // 5)),
        (RESPONSES, b'{"model":"%s","input":%s}' % (name, numbers)),
    ]
