"""Whether a request's client is still there."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from lingbi.api_errors import ClientGone

Done = TypeVar("Done")


async def unless_gone(request: Request, work: Awaitable[Done]) -> Done:
    """The result of a coroutine; cancelled, with ClientGone, when the client leaves first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
