"""Progressive JPEGs that cost far more to decode than to send, at the API by another key and on the page."""

import asyncio
import base64
import io
import json
import os

import httpx
from PIL import Image

from lingbi.images.scenes import Scene, Thing, draw
from lingbi.smoke.checks import turn
from tests.client import CHAT, QUESTION, body
from tests.load.abuse import gradio_page
from tests.load.abuse.attackers import Target

SIDE = 7000  # 49 million pixels
# (side, scans): one that every server should refuse, and from dear to cheap, so that the worst that is taken is among them.
DEAR = ((SIDE, 2000), (SIDE, 95), (SIDE, 40), (SIDE, 20), (SIDE, 10), (2000, 95), (1000, 95))
OWN_SCANS = 10  # that Pillow writes
WORKERS = 4  # on each way
LEAVES_AFTER_S = 5.0


async def attack(target: Target) -> None:
    files = [many_scans(side, scans) for side, scans in DEAR]
    await target.begin()
    async with target.client() as client, target.visitor() as visitor:

        async def on_api(number: int) -> httpx.Response:
            return await client.post(CHAT, content=asked(target.model, files[number % len(files)]))

        async def on_page(number: int) -> str:
            path = await gradio_page.upload(visitor, "photo.jpg", new(files[number % len(files)]))
            return await ask_and_leave(visitor, gradio_page.question(target.event, QUESTION, [path], 32))

        await asyncio.gather(target.repeat(WORKERS, on_api), target.repeat(WORKERS, on_page))


async def ask_and_leave(visitor: httpx.AsyncClient, question: dict) -> str:
    """Ask on the page and wait a little."""

    async def listen() -> None:
        async for _ in gradio_page.answers(visitor, question):
            return

    try:
        await asyncio.wait_for(listen(), LEAVES_AFTER_S)
        return "answered"
    except asyncio.TimeoutError:
        return "left"


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG of side x side pixels whose last scan is repeated."""
    picture = draw(Scene((Thing("red", "circle"),))).resize((side, side), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * max(0, scans - OWN_SCANS) + data[-2:]


def new(data: bytes) -> bytes:
    """The same picture as another file, so that nothing kept answers for it."""
    return data + os.urandom(8)


def asked(model: str, data: bytes) -> bytes:
    url = "data:image/jpeg;base64," + base64.b64encode(new(data)).decode()
    return json.dumps(body({"model": model}, [turn(QUESTION, url)])).encode()
