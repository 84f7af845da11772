"""Tells in the log, at the level DEBUG, for how long the event loop did one visitor's work while all others waited."""

import asyncio
import logging
import time

LOOK_S = 0.01
TOLD_S = 0.1
log = logging.getLogger("uvicorn.error")


async def tell_stalls() -> None:
    """Measure the processor time of the loop's thread between two looks; runs until it is cancelled."""
    before = time.thread_time()
    while log.isEnabledFor(logging.DEBUG):
        await asyncio.sleep(LOOK_S)
        now = time.thread_time()
        if now - before > TOLD_S:
            log.debug("the loop was blocked for %d ms", 1000 * (now - before))
        before = now
