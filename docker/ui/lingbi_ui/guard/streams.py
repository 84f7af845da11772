"""Streams to browsers: how many a visitor has at once, and their end with whatever they belong to."""

import asyncio
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingbi_ui.guard.refusals import refusal
from lingbi_ui.guard.visitors import VISITOR, Shares, Visitor

LOOK_S = 2.0  # how soon a stream notices that its login or its session has ended


class Streams:
    """Those of all visitors: their answers, and the progress of their uploads."""

    def __init__(self, app: ASGIApp, shares: Shares) -> None:
        self.app, self.shares = app, shares
        self.running: Counter[Visitor] = Counter()

    async def run(self, scope: Scope, receive: Receive, send: Send, lasts: Callable[[], bool]) -> None:
        """Let the application send a stream until it ends or lasts no longer; refuse one that is too many."""
        visitor: Visitor = scope[VISITOR]
        if not self._has_room(visitor):
            await refusal(scope, 429, "page_busy")(scope, receive, send)
            return
        self.running[visitor] += 1
        try:
            await self._until(scope, receive, send, lasts)
        finally:
            self.running -= Counter({visitor: 1})  # without what is nought

    def _has_room(self, visitor: Visitor) -> bool:
        own, every = self.shares.of(visitor).streams, self.shares.all.streams
        return self.running[visitor] < own and self.running.total() < every

    async def _until(self, scope: Scope, receive: Receive, send: Send, lasts: Callable[[], bool]) -> None:
        is_begun = False

        async def noted(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        stream = asyncio.ensure_future(self.app(scope, receive, noted))
        try:
            while not stream.done() and lasts():
                await asyncio.wait({stream}, timeout=LOOK_S)
        finally:
            if is_cut := not stream.done():
                stream.cancel()
                await asyncio.gather(stream, return_exceptions=True)
        if not is_cut:
            stream.result()
        elif is_begun:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await refusal(scope, 401, "page_refused")(scope, receive, send)
