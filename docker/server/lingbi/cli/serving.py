"""Describes images through a server that runs: in the background of those who wait for it, and without a second model."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from lingbi.api_errors import ImageError
from lingbi.cli.rows import Row
from lingbi.client.servers import Server, message_of
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.images.loader import ImageRules
from lingbi.images.messages import user_message
from lingbi.images.sources import is_url, path_of, read_source

AT_ONCE = 128
HELD_BYTES = 256 << 20  # of pictures that are on their way
CONNECT_S, ANSWER_S = 5, 600
PATIENCE_S = 600.0  # for so long a server that is away, or full, is asked again after it last answered anything
AGAIN_S, LONGEST_WAIT_S = 1.0, 60.0
FULL = (429, 502, 503, 504)


class Away(Exception):
    """The server cannot answer now. after_s: when to ask again; says: why."""

    def __init__(self, says: str, after_s: float = AGAIN_S) -> None:
        super().__init__(says)
        self.after_s = after_s


class Served:
    """Asks a server about images, many at once. Rows come as they are answered."""

    def __init__(self, server: Server, options: argparse.Namespace, rules: ImageRules) -> None:
        self.server, self.options, self.rules = server, options, rules
        self.at_once: int = options.batch or AT_ONCE
        self.held_bytes = 0
        self.answered_at = 0.0  # time.monotonic()
        self.loop = asyncio.new_event_loop()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.client = server.async_client(timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S), limits=limits)

    def rows(self, left: Iterator[str]) -> Iterator[Row]:
        """The rows of sources. Raises LingbiError when the server stays away."""
        under_way: dict[asyncio.Task[Row], int] = {}
        try:
            while self._begin_more(left, under_way):
                waiting = asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                done, _ = self.loop.run_until_complete(waiting)
                for task in done:
                    self.held_bytes -= under_way.pop(task)
                    yield task.result()
        finally:
            self.loop.run_until_complete(self._end(list(under_way)))

    async def _end(self, left: list[asyncio.Task[Row]]) -> None:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.client.aclose()

    def _begin_more(self, left: Iterator[str], under_way: dict[asyncio.Task[Row], int]) -> bool:
        """Begin with further sources while there is room; whether any is under way."""
        while len(under_way) < self.at_once and (self.held_bytes < HELD_BYTES or not under_way):
            source = next(left, None)
            if source is None:
                break
            size = _size_of(source)
            under_way[self.loop.create_task(self._row(source))] = size
            self.held_bytes += size
        return bool(under_way)

    async def _row(self, source: str) -> Row:
        """The row of one source."""
        row = {"source": source, "prompt": self.options.prompt}
        try:
            data = await asyncio.to_thread(read_source, source, self.rules)
        except (ImageError, OSError) as error:
            return row | {"error": str(error)}
        body = self._body(f"data:;base64,{base64.b64encode(data).decode()}")
        return row | await self._answer(body)

    def _body(self, url: str) -> bytes:
        asked: dict[str, Any] = {
            "model": self.server.model,
            "messages": [user_message(self.options.prompt, url)],
            "temperature": 0,
            "max_tokens": self.options.max_tokens,
            "service_tier": "flex",
        }
        if self.options.form:
            schema = {"name": "answer", "strict": True, "schema": self.options.form.source}
            asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(asked, ensure_ascii=False).encode()

    async def _answer(self, body: bytes) -> Row:
        """A row's fields of an answer; a server that is full or away is asked again. Raises LingbiError if it stays so."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Away),
            wait=_wait_s,
            stop=self._is_silent,
            before_sleep=_say_away,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await self._once(body)
        except Away as away:
            raise LingbiError(
                f"{self.server.url} has not answered for {PATIENCE_S:g} s ({away}); run the same command again to go on"
            ) from None
        raise AssertionError("the loop above returns or raises")

    def _is_silent(self, state: RetryCallState) -> bool:
        """Whether the server has answered nothing for too long: a picture may wait longer while others are answered."""
        return time.monotonic() - max(state.start_time, self.answered_at) >= PATIENCE_S

    async def _once(self, body: bytes) -> Row:
        headers = {"Content-Type": "application/json"}
        try:
            response = await self.client.post("/v1/chat/completions", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Away(type(error).__name__) from None
        if response.status_code in FULL:
            after = response.headers.get("Retry-After", "")
            raise Away(message_of(response), float(after) if after.isdecimal() else AGAIN_S)
        self.answered_at = time.monotonic()
        if response.status_code == 401:
            raise ConfigurationError(f"{self.server.url}: {message_of(response)}; give --api-key-file")
        if response.status_code != 200:
            return {"error": message_of(response)}
        told = response.json()
        choice, usage = told["choices"][0], told["usage"]
        counts = {
            "input_token_len": usage["prompt_tokens"],
            "generate_token_len": usage["completion_tokens"],
            "finish_reason": choice["finish_reason"],
        }
        return {"text": choice["message"]["content"]} | counts


def _size_of(source: str) -> int:
    """A source's size in bytes as far as it is known before it is read."""
    try:
        return 0 if is_url(source) else os.stat(path_of(source)).st_size
    except OSError:
        return 0


def _wait_s(state: RetryCallState) -> float:
    away = state.outcome.exception() if state.outcome else None
    asked_s = away.after_s if isinstance(away, Away) else AGAIN_S
    return min(max(asked_s, AGAIN_S), LONGEST_WAIT_S)


def _say_away(state: RetryCallState) -> None:
    """Say once for a source that the server is asked again."""
    if state.attempt_number == 10:
        reason = state.outcome.exception() if state.outcome else ""
        print(f"the server is asked again and again: {reason}", file=sys.stderr)
