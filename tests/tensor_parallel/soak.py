"""Keeps a server busy with what could stop two cards that wait for each other: new pictures of all sizes beside answers."""

import asyncio
import io
import json
import random
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from tests.client import CHAT, client_options

SIDES = range(100, 1500)
STALLED_S = 30.0  # nothing comes for so long: the server has stopped


def data_url(seed: int) -> str:
    """A picture that no other seed has, in a size of its own."""
    numbers = np.random.default_rng(seed)
    squares = Image.fromarray(numbers.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    size = tuple(int(side) for side in numbers.choice(SIDES, 2))
    file = io.BytesIO()
    squares.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return "data:image/jpeg;base64," + b64encode(file.getvalue()).decode()


def text_of(line: str) -> str:
    """The text of an event of a stream."""
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


@dataclass
class Soak:
    """counts: what became of the requests, by kind; faults: what went wrong; first_s: seconds to first tokens of pictures."""

    server: dict
    until: float
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    tokens: int = 0

    async def run(self, people: int) -> None:
        """Everybody asks one thing after the other until the time is over, or something stalls."""
        options = client_options(self.server) | {"timeout": STALLED_S}
        async with httpx.AsyncClient(**options, limits=httpx.Limits(max_connections=people)) as client:
            await asyncio.gather(*(self._person(client, number) for number in range(people)))

    async def _person(self, client: httpx.AsyncClient, number: int) -> None:
        chance, asked = random.Random(number), 0
        while time.monotonic() < self.until and not self.faults:
            asked += 1
            kind = chance.choices(("picture", "leaves", "text"), (5, 2, 2))[0]
            await self._talk(client, kind, number * 10_000 + asked, chance)

    async def _talk(self, client: httpx.AsyncClient, kind: str, seed: int, chance: random.Random) -> None:
        """A question, and where it is about a picture a second one that goes on from it."""
        parts = [{"type": "text", "text": f"请描述图中内容 {seed}"}]
        parts += (
            []
            if kind == "text"
            else [{"type": "image_url", "image_url": {"url": await asyncio.to_thread(data_url, seed)}}]
        )
        messages = [{"role": "user", "content": parts}]
        said = await self._ask(client, kind, messages, chance)
        if kind == "picture" and said is not None:
            messages += [{"role": "assistant", "content": said or "-"}, {"role": "user", "content": "还有什么?"}]
            await self._ask(client, "follow-up", messages, chance)

    async def _ask(self, client: httpx.AsyncClient, kind: str, messages: list, chance: random.Random) -> str | None:
        """One streamed answer; None where the client leaves, or it failed."""
        body = {"model": self.server["model"], "messages": messages, "stream": True, "ignore_eos": True}
        body |= {"max_tokens": chance.randrange(8, 64), "temperature": chance.choice((0, 0.8))}
        leaves_after, began, said, pieces = (
            chance.randrange(1, 6) if kind == "leaves" else None,
            time.monotonic(),
            "",
            0,
        )
        try:
            async with client.stream("POST", CHAT, json=body) as response:
                if response.status_code != 200:
                    self.faults.append(f"{kind}: {response.status_code} {(await response.aread())[:200]!r}")
                    return None
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    said += text_of(line)
                    pieces += bool(said)
                    if pieces == 1 and kind == "picture":
                        self.first_s.append(time.monotonic() - began)
                    if pieces == leaves_after:
                        self.counts[kind] += 1
                        return None
        except httpx.HTTPError as error:
            self.faults.append(f"{kind}: {error!r} after {time.monotonic() - began:.1f} s and {pieces} pieces")
            return None
        self.tokens += pieces
        self.counts[kind] += 1
        return said
