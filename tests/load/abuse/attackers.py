"""The attackers' side, in a process of its own: one attack, as fast as it can, until its seconds are over.

`python -m tests.load.abuse.attackers` takes its task as a line of JSON, says "ready" when what it sends is made, begins
at the next line, and prints how often what came back, as a line of JSON, when it is over.
"""

import asyncio
import contextlib
import importlib
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.load.abuse import gradio_page
from tests.load.abuse.addresses import ATTACKER, headers_of, source_of
from tests.load.abuse.trust import AUTHORITIES

# In the order of the report: what is attacked, and the module of tests.load.abuse.attacks with its `attack`.
ATTACKS = ("pictures", "bodies", "sessions", "uploads", "connections", "predict", "streams")
OLD_LOGIN = "old_login"  # needs a stack with logins
PAUSE_S = 0.02  # after each request: a refusal costs the attacker next to nothing
TIMEOUT_S = 60


class Target:
    """What an attack knows of the stack, and what it counts: outcomes of its requests."""

    def __init__(self, task: dict):
        self.url, self.key, self.model = task["url"], task["key"], task["model"]
        self.cookies: dict[str, str] = task["cookies"] or {}
        self.address = source_of(task["addresses"], ATTACKER)
        self.told = headers_of(task["addresses"], ATTACKER)
        self.event: int = task["event"]
        self.tally: Counter[str] = Counter()
        self.ready, self.go = asyncio.Event(), asyncio.Event()

    async def begin(self) -> None:
        """Called by an attack when what it sends is made; returns when all sides begin."""
        self.ready.set()
        await self.go.wait()

    def client(self, **options: Any) -> httpx.AsyncClient:
        """One with a key; more than enough connections."""
        key = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        return self._client(headers=key | self.told, **options)

    def visitor(self, **options: Any) -> httpx.AsyncClient:
        """One without a key, with the old cookies where there are some."""
        return self._client(headers=self.told, cookies=self.cookies, **options)

    def _client(self, **options: Any) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        transport = httpx.AsyncHTTPTransport(verify=AUTHORITIES, local_address=self.address, limits=limits)
        return httpx.AsyncClient(**{"base_url": self.url, "timeout": TIMEOUT_S, "transport": transport} | options)

    async def repeat(self, workers: int, once: Callable[[int], Awaitable[Any]]) -> None:
        """Call it without end with 0, 1, 2, … from so many workers, and count what it returns or why it did not.

        What was sent and is not answered when the attack is over is only counted as sent.
        """
        numbers = iter(range(1 << 62))

        async def work() -> None:
            while True:
                self.tally["sent"] += 1
                self.tally[await outcome(once(next(numbers)))] += 1
                await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(work() for _ in range(workers)))


async def outcome(request: Awaitable[Any]) -> str:
    """A response's status, or the name of the error."""
    try:
        answer = await request
        return str(answer.status_code if isinstance(answer, httpx.Response) else answer)
    except (httpx.HTTPError, OSError, EOFError, ValueError, gradio_page.PageRefused) as error:
        return type(error).__name__


async def attack(task: dict) -> Counter[str]:
    target = Target(task)
    module = importlib.import_module(f"tests.load.abuse.attacks.{task['attack']}")
    running = asyncio.create_task(module.attack(target))
    ready = asyncio.create_task(target.ready.wait())
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        target.go.set()
        await asyncio.wait([running], timeout=task["seconds"])
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running  # an attack that failed itself fails the run
    return target.tally


def main() -> None:
    task = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(attack(task))), flush=True)


if __name__ == "__main__":
    main()
