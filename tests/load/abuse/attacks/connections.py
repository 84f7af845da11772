"""4300 connections from one address, each with half a header, opened again as soon as they are closed."""

import asyncio
import resource

import httpx

from tests.load.abuse.attackers import Target

CONNECTIONS = 4300
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: "


async def attack(target: Target) -> None:
    url = httpx.URL(target.url)
    source = (target.address, 0) if target.address else None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every connection is an open file
    await target.begin()

    async def once(number: int) -> str:
        reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=source)
        try:
            writer.write(HALF)
            await reader.read()  # until the other side closes
            return "closed"
        finally:
            writer.transport.abort()

    await target.repeat(CONNECTIONS, once)
