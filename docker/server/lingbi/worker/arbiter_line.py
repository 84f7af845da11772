"""A worker's line to the arbiter: tells it how the worker is, and passes on its orders."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lingbi.demand.arbiter import LINE_BYTES, Told

log = logging.getLogger("lingbi.worker")
BEAT_S, AGAIN_S = 0.5, 0.5


class ArbiterLine:
    """tell: how the worker is, given the number of the last order; obey: called with each order, on the event loop.

    `notify` may be called by any thread. While no arbiter is there, the worker goes on as it is.
    """

    def __init__(self, file: Path, tell: Callable[[int], Told], obey: Callable[[dict[str, Any]], None]) -> None:
        self.file, self.tell, self.obey = file, tell, obey
        self.heard = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.changed = asyncio.Event()

    def notify(self) -> None:
        """Tell the arbiter at once."""
        if self.loop:
            self.loop.call_soon_threadsafe(self.changed.set)

    async def keep(self) -> None:
        """Hold the line, until the process ends."""
        self.loop = asyncio.get_running_loop()
        is_told = False
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self.file, limit=LINE_BYTES)
                is_told = False
                await self._talk(reader, writer)
            except OSError as error:
                if not is_told:
                    log.warning("the arbiter cannot be reached, and no model comes or goes meanwhile: %s", error)
                is_told = True
            await asyncio.sleep(AGAIN_S)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard = 0
        beats = asyncio.ensure_future(self._beat(writer))
        try:
            while line := await reader.readline():
                order = json.loads(line)
                self.heard = order["number"]
                self.obey(order)
                self.changed.set()
        finally:
            beats.cancel()
            writer.close()

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self.changed.clear()
            writer.write(json.dumps(asdict(self.tell(self.heard))).encode() + b"\n")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.changed.wait(), BEAT_S)
