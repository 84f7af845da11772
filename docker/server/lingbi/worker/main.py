"""One worker process: one copy of the model, served over HTTP on its own port."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from lingbi import planner
from lingbi.engine.turbomind.heap import share_one_heap, touch_ahead
from lingbi.errors import LingbiError, StartError
from lingbi.garbage import keep_from_collector, uncollected
from lingbi.http.auth import ensure_keys
from lingbi.http.readiness import (
    FAILED,
    LOADING,
    LOADING_MODEL,
    PREPARING,
    PROBING,
    READY,
    WEDGED,
    Readiness,
)
from lingbi.logs import configure
from lingbi.model.folder import ModelFolder, inspect
from lingbi.model.gpus import TURBOMIND, emptied, find_gpus, look_at
from lingbi.model.host_memory import CpuFit, fit_on_cpu, workers_share_mib
from lingbi.model.sizing import Fit, fit_when_free
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.weights.start import ensure
from lingbi.worker.restarts import Restarts

if TYPE_CHECKING:
    from lingbi.engine.local import LocalEngine
    from lingbi.vision.tower import GpuVisionModel

Prepared = TypeVar("Prepared")
Built = TypeVar("Built")

log = logging.getLogger("lingbi.worker")
FAILURE_SHOWN_S = 3
GIVE_UP_MARGIN_S = 10
WEDGED_STATUS = 1


def main() -> int:
    """Run until SIGTERM.

    The exit status is 0, or 1 when the watchdog gave the worker up, 2 for a bad setting, 3 when it could not start.
    """
    configure("INFO")
    try:
        settings = load_settings()
        configure(settings.log_level)
        with own_temporary_folder():
            return Worker(settings).run()
    except LingbiError as error:
        log.error("%s", error)
        return error.exit_status


@dataclass(frozen=True)
class Fitted:
    """A model folder whose weights were checked, and the engine's settings with which it fits this machine."""

    folder: ModelFolder
    fit: Fit | CpuFit


class Worker:
    """Listens at once, loads the model in a thread, and is ready when it has answered a question about an image."""

    def __init__(self, settings: Settings) -> None:
        with uncollected():
            from lingbi.heartbeat import Vitals
            from lingbi.http.auth import KeyRing
            from lingbi.http.metrics import Metrics
            from lingbi.http.service import Service

        gpus = find_gpus()
        self.settings = settings
        # The choice goes by the cards' whole memory, because what occupies one now may be a worker that is ending.
        self.choice, self.found = planner.choose(settings, emptied(gpus))
        name = (planner.identify(self.found) or self.found).served_name
        ensure_keys(settings.hashed_key_file(), settings.key_file())
        self.exit_status = 0
        if self.choice.engine == TURBOMIND:
            # lmdeploy puts its encoder on cuda:0, so a worker may see no GPU but its own.
            self.device = gpus[settings.worker % len(gpus)].device
            os.environ["CUDA_VISIBLE_DEVICES"] = self.device
            share_one_heap()
        readiness = Readiness(name, self.choice.engine, self.choice.reason)
        self.service = Service(settings, readiness, KeyRing(settings.hashed_key_file()), Metrics(), Vitals())
        self.restarts = Restarts(settings.state_dir / "run" / f"worker-{settings.worker}.starts")
        for reason, count in self.restarts.reasons.items():
            self.service.metrics.restarts.labels(reason).inc(count)
        log.info("model %s, engine %s: %s", name, self.choice.engine, self.choice.reason)

    @property
    def readiness(self) -> Readiness:
        """What /ready reports of this worker."""
        return self.service.readiness

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's event loop; there is one once the server is up."""
        assert self.server.loop is not None
        return self.server.loop

    def run(self) -> int:
        """Serve until SIGTERM or until the worker is given up; returns the exit status."""
        from lingbi.http.app import create_app
        from lingbi.worker.server import DrainingServer

        port = self.settings.port + self.settings.worker
        app = create_app(self.service)
        self.server = DrainingServer(app, self.service, self.settings.host, port, self.settings.drain_timeout_s)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until uvicorn takes the signal over
        threading.Thread(target=self._load, name="load", daemon=True).start()
        self.server.run()
        if self.exit_status == 0:
            self.restarts.forget()
        return self.exit_status

    def _load(self) -> None:
        try:
            self.server.is_up.wait()
            fitted = bring_up(self.readiness, self._prepare, self._build, self._probe)
            if self.server.deadline is None:
                self.readiness.enter(READY)
                log.info("ready: %s", self.readiness.probe)
                self._watch(fitted.folder.is_demo)
        except Exception as error:  # the thread ends here, so report the error and end the process
            self._fail(error)

    def _prepare(self) -> Fitted:
        """Fetch or check the weights, then find out which model they are, and with which settings it fits."""
        ensure(self.found, self.settings, self.readiness.weights)
        folder = inspect(self.found.path)
        fit = self.readiness.fit = self._fit(folder)
        log.info("memory: %s", fit)
        facts = {"model": folder.served_name, "engine": self.choice.engine}
        self.service.metrics.model.info(facts | {"session_len": str(fit.session_len)})
        return Fitted(folder, fit)

    def _fit(self, folder: ModelFolder) -> Fit | CpuFit:
        if self.choice.engine == TURBOMIND:
            return fit_when_free(folder, partial(look_at, self.device), self.settings)
        return fit_on_cpu(folder, workers_share_mib(self.settings.workers or 1), self.settings)

    def _build(self, fitted: Fitted) -> LocalEngine:
        with uncollected():
            from lingbi.engine.build import build_engine
            from lingbi.engine.local import EngineNeeds

        readiness = self.readiness
        needs = EngineNeeds(
            fitted.folder,
            self.settings,
            fitted.fit,
            on_vision_loaded=lambda: readiness.enter(LOADING_MODEL),
            on_weights=readiness.weights_loaded,
        )
        return build_engine(needs)

    def _probe(self, fitted: Fitted, engine: LocalEngine) -> None:
        future = asyncio.run_coroutine_threadsafe(self._serve(fitted, engine), self.loop)
        self.readiness.probe = future.result(self.settings.load_timeout_s)

    async def _serve(self, fitted: Fitted, engine: LocalEngine) -> dict[str, float]:
        """Answer requests with this engine, the probe's question first; returns what the probe measured."""
        folder, fit = fitted.folder, fitted.fit
        kept_sessions = fit.kept_sessions if isinstance(fit, CpuFit) else self.settings.kept_sessions
        generator = self.service.take_engine(engine, fit.max_batch_size, kept_sessions)
        self.service.metrics.kv_capacity.set(fit.cache_tokens)
        hd_num = self.settings.hd_num if folder.is_tiled else None
        self.readiness.prompt = generator.prompt_facts() | {"hd_num": hd_num}
        log.info("prompts in the form %(form)s, %(template_tokens)d tokens around a picture", self.readiness.prompt)
        from lingbi.worker.probe import ask_probe

        probe = await ask_probe(self.service, folder.is_demo)
        # A CPU keeps few sessions, and computing the template's text takes it as long as some answers.
        if not isinstance(fit, CpuFit):
            await generator.prime()
            touch_ahead(kept_sessions, cast("GpuVisionModel", engine.vl_encoder.model).feature_bytes)
        return probe

    def _watch(self, is_demo: bool) -> None:
        from lingbi.worker.watchdog import Watchdog

        self.watchdog = Watchdog(
            self.service,
            self.loop,
            self._give_up,
            self.settings.watchdog_interval_s,
            self.settings.watchdog_timeout_s,
            is_demo=is_demo,
            uses_gpu=self.choice.engine == TURBOMIND,
        )
        self.watchdog.start()

    def _give_up(self, reason: str) -> None:
        """Let running answers finish where they can, then end the process; supervisor starts a new worker."""
        self.restarts.note("wedged")
        self.exit_status = WEDGED_STATUS
        self.server.drain(WEDGED, reason)
        time.sleep(self.settings.drain_timeout_s + GIVE_UP_MARGIN_S)
        exit_now(WEDGED_STATUS)  # the event loop has stalled too, or it would have ended the process by now

    def _fail(self, error: Exception) -> None:
        if isinstance(error, LingbiError):
            log.error("%s", error)
        else:
            log.exception("the model did not load")
        self.readiness.enter(FAILED, str(error))
        self.exit_status = getattr(error, "exit_status", StartError.exit_status)
        self.restarts.note("failed")
        # Whoever watches /ready can read why before supervisor starts the next attempt.
        time.sleep(FAILURE_SHOWN_S)
        self.server.should_exit = True


def bring_up(
    readiness: Readiness,
    prepare: Callable[[], Prepared],
    build: Callable[[Prepared], Built],
    probe: Callable[[Prepared, Built], None],
) -> Prepared:
    """Take a worker through the phases of its start, until the probe's question is answered.

    What was loaded by then lives as long as the process, so the garbage collector passes over it from there on.
    """
    readiness.enter(PREPARING)
    prepared = prepare()
    readiness.enter(LOADING)
    built = build(prepared)
    readiness.enter(PROBING)
    probe(prepared, built)
    keep_from_collector()
    return prepared


def exit_now(status: int) -> None:
    """End the process without waiting for the engine's threads, which never return."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def run_and_exit() -> None:
    """Run, then end with main's status and without the interpreter's usual shutdown."""
    try:
        exit_now(main())
    except SystemExit as stop:
        exit_now(int(stop.code or 0))
