"""The cookie of a login that was removed: asks, uploads and opens the page's routes with it."""

import httpx

from tests.load.abuse import gradio_page
from tests.load.abuse.attackers import Target

WORKERS = 4


async def attack(target: Target) -> None:
    await target.begin()
    async with target.visitor() as visitor:

        async def once(number: int) -> httpx.Response:
            if number % 2:
                return await visitor.post("/gradio_api/upload", files={"files": ("photo.png", b"x" * 1000)})
            question = gradio_page.question(target.event, "hello", [], 8)
            return await visitor.post("/gradio_api/queue/join", json=question)

        await target.repeat(WORKERS, once)
