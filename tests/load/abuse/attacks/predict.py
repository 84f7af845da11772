"""The page's event that asks, called past its queue."""

import httpx

from tests.load.abuse import gradio_page
from tests.load.abuse.attackers import Target

PREDICT = "/gradio_api/run/predict"
WORKERS = 16


async def attack(target: Target) -> None:
    await target.begin()
    async with target.visitor() as visitor:

        async def once(number: int) -> httpx.Response:
            return await visitor.post(PREDICT, json=gradio_page.question(target.event, f"hello {number}", [], 0))

        await target.repeat(WORKERS, once)
