"""Watches a worker from a separate thread and has it replaced when it can no longer answer."""

import asyncio
import concurrent.futures
import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pynvml

from lingbi.http.readiness import GPU_GONE, READY
from lingbi.http.service import Service
from lingbi.model.gpus import Gpu, find_gpus
from lingbi.worker.probe import ask_probe

log = logging.getLogger(__name__)
LOOK_S = 1.0
LOOK_AT_GPU_S = 10.0
FAILED_PROBES = 2
# For a library call that holds the interpreter's lock, so that not even this thread runs.
FROZEN_MARGIN_S = 60
PROBE_ERRORS = (Exception, asyncio.CancelledError)


class Watchdog:
    """Checks the event loop, the engine's parts and the GPU every second.

    If no image question was answered for `interval_s`, it asks one. If something is stalled for `timeout_s`, or two
    questions in a row fail, it calls `give_up(reason)` once.
    """

    def __init__(
        self,
        service: Service,
        loop: asyncio.AbstractEventLoop,
        give_up: Callable[[str], None],
        interval_s: float,
        timeout_s: float,
        is_demo: bool,
        cards: int,
    ) -> None:
        """cards: the GPUs of this worker; 0 on a CPU."""
        self.service, self.loop, self.give_up = service, loop, give_up
        self.interval_s, self.timeout_s, self.is_demo, self.cards = interval_s, timeout_s, is_demo, cards
        self.loop_beat = self.looked_at_gpu = time.monotonic()
        self.probe: concurrent.futures.Future[dict[str, Any]] | None = None
        self.failures = 0
        self.stopped = threading.Event()

    def start(self) -> None:
        """Start the watchdog's thread."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching, because the worker is about to exit."""
        self.stopped.set()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self.stopped.wait(LOOK_S):
            faulthandler.dump_traceback_later(self.timeout_s + FROZEN_MARGIN_S, exit=True)
            try:
                reason = self.find_fault()
            except RuntimeError:
                if self.loop.is_closed():
                    return  # the server has ended, and this process is about to
                raise
            if reason:
                log.error("this worker is given up: %s; where its threads are:", reason)
                faulthandler.dump_traceback(file=sys.stderr)
                self.stop()
                self.give_up(reason)

    def find_fault(self) -> str | None:
        """The reason to replace the worker; None while it works."""
        self.loop.call_soon_threadsafe(self._beat)
        silent_s = time.monotonic() - self.loop_beat
        if silent_s > self.timeout_s:
            return f"the event loop has not run for {silent_s:.0f} s"
        if self.cards and time.monotonic() - self.looked_at_gpu >= LOOK_AT_GPU_S:
            self.looked_at_gpu = time.monotonic()
            self.note_gpu(gpu_fault(cards=self.cards))
        return self.service.vitals.stalled(self.timeout_s) or self._ask()

    def _beat(self) -> None:
        self.loop_beat = time.monotonic()

    def _ask(self) -> str | None:
        if self.probe and self.probe.done():
            probe, self.probe = self.probe, None
            return self._take(probe)
        if not self.probe and (self.failures or self.service.vitals.unproven_s() > self.interval_s):
            question = ask_probe(self.service, self.is_demo)
            self.probe = asyncio.run_coroutine_threadsafe(question, self.loop)
        return None

    def _take(self, probe: concurrent.futures.Future[dict[str, Any]]) -> str | None:
        try:
            self.service.readiness.probe = probe.result()
        except PROBE_ERRORS as error:  # whatever it was: the question was not answered
            self.failures += 1
            self.service.metrics.probes.labels("failed").inc()
            log.warning("the watchdog's picture question failed (%s of %s): %r", self.failures, FAILED_PROBES, error)
            return (
                f"{FAILED_PROBES} picture questions failed, last: {error}" if self.failures >= FAILED_PROBES else None
            )
        self.failures = 0
        self.service.metrics.probes.labels("answered").inc()
        return None

    def note_gpu(self, fault: str | None) -> None:
        """Have readiness follow the GPU: it is not ready while there is a fault, and ready again after it."""
        readiness = self.service.readiness
        if fault and readiness.phase == READY:
            log.error("%s", fault)
            readiness.enter(GPU_GONE, fault)
        elif not fault and readiness.phase == GPU_GONE:
            log.info("the GPU is there again")
            readiness.enter(READY)


def gpu_fault(find: Callable[[], Sequence[Gpu]] = find_gpus, cards: int = 1) -> str | None:
    """Why the GPU of this worker, or one of so many, cannot be reached; None when it can. find: asks the driver afresh
    each time."""
    try:
        gpus = find()
    except pynvml.NVMLError as error:
        return f"the driver cannot reach this worker's GPU: {error}"
    if len(gpus) >= cards:
        return None
    shown = "no GPU" if cards == 1 else f"{len(gpus)} of {cards} GPUs"
    return f"the driver shows {shown} to this worker; restart the container, then see `nvidia-smi`"
