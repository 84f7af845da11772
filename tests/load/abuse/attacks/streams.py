"""80 long streams of one key at once, each begun anew when it ends or is refused."""

from tests.client import CHAT
from tests.load.abuse.attackers import Target
from tests.load.abuse.stack import text_body

STREAMS, TOKENS = 80, 3500


async def attack(target: Target) -> None:
    body = text_body(target.model, "hello", stream=True) | {"max_tokens": TOKENS, "ignore_eos": True}
    await target.begin()
    async with target.client() as client:

        async def once(number: int) -> str:
            async with client.stream("POST", CHAT, json=body) as response:
                async for _ in response.aiter_bytes():
                    continue
                return str(response.status_code)

        await target.repeat(STREAMS, once)
