"""One worker process: one copy of the model, served over HTTP on its own port."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lingbi import planner
from lingbi.accounts.key_file import ensure_keys
from lingbi.engine.turbomind.heap import share_one_heap, touch_ahead
from lingbi.errors import LingbiError, StartError
from lingbi.garbage import uncollected
from lingbi.http.readiness import (
    FAILED,
    LOADING_MODEL,
    READY,
    WEDGED,
    Readiness,
)
from lingbi.logs import configure
from lingbi.model.folder import ModelFolder, inspect
from lingbi.model.gpus import find_gpus, look_at
from lingbi.model.host_memory import CpuFit, available_mib, fit_on_cpu, workers_share_mib
from lingbi.model.sizing import Fit, fit_when_free
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.weights.start import ensure
from lingbi.worker.phases import bring_up
from lingbi.worker.restarts import Restarts

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds, LocalEngine
    from lingbi.vision.tower import GpuVisionModel


log = logging.getLogger("lingbi.worker")
FAILURE_SHOWN_S = 3
GIVE_UP_MARGIN_S = 10
WEDGED_STATUS = 1


def serve(settings: Settings) -> int:
    """Be a worker until SIGTERM; returns the exit status."""
    with own_temporary_folder():
        return Worker(settings).run()


def main(live: Callable[[Settings], int] = serve) -> int:
    """Run until SIGTERM. live: what the process is.

    The exit status is 0, or 1 when the watchdog gave the worker up, 2 for a bad setting, 3 when it could not start.
    """
    configure("INFO")
    try:
        settings = load_settings()
        configure(settings.log_level)
        return live(settings)
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

    sockets: list[socket.socket] | None = None  # to listen at; None: one of its own
    is_left_to_others = False
    # Whether requests wait while the model is loaded: then it omits what only spares later requests some milliseconds.
    is_awaited = False

    def __init__(self, settings: Settings, restarts: Restarts | None = None) -> None:
        with uncollected():
            from lingbi.accounts.opening import database_at_start
            from lingbi.accounts.ring import KeyRing, Source
            from lingbi.heartbeat import Vitals
            from lingbi.http.metrics import Metrics
            from lingbi.http.service import Service
            from lingbi.worker.accounts import bring_ledger
            from lingbi.worker.batches import bring_store

        gpus = find_gpus()
        self.settings = settings
        self.choice, self.found, self.assigned = planner.assigned(settings, gpus)
        name = (planner.identify(self.found) or self.found).served_name
        ensure_keys(settings.hashed_key_file(), settings.key_file())
        self.exit_status = 0
        if self.assigned.device is not None:
            # lmdeploy puts its encoder on cuda:0, so a worker may see no GPU but its own, or its own two.
            os.environ["CUDA_VISIBLE_DEVICES"] = self.assigned.device
            share_one_heap()
        self.database = database_at_start(settings)
        keys = KeyRing(settings.hashed_key_file(), Source.of(settings, self.database))
        keys.start()
        readiness = Readiness(name, self.choice.engine, self.choice.reason)
        self.service = Service(settings, readiness, keys, Metrics(name), Vitals())
        self.ledger = bring_ledger(self.service, self.database)
        bring_store(self.service, self.database)
        self.restarts = restarts or Restarts(restarts_file(settings))
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
        self.app = create_app(self.service)
        self.server = DrainingServer(
            self.app, self.service, self.settings.host, port, self.settings.drain_timeout_s, self.is_left_to_others
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until uvicorn takes the signal over
        threading.Thread(target=self._load, name="load", daemon=True).start()
        self.ledger.start()
        self.server.run(self.sockets)
        self.ledger.stop()
        if self.exit_status == 0 and not self.is_left_to_others:
            self.restarts.forget()
        return self.exit_status

    def _load(self) -> None:
        from lingbi.worker.batches import start_runner

        try:
            self.server.is_up.wait()
            fitted = bring_up(self.readiness, self._prepare, self._build, self._probe)
            if self.server.deadline is None:
                self.readiness.enter(READY)
                log.info("ready: %s", self.readiness.probe)
                self._watch(fitted.folder.is_demo)
                self.batches = start_runner(self.service, self.app, self.loop)
        except Exception as error:  # the thread ends here, so report the error and end the process
            self._fail(error)

    def _prepare(self) -> Fitted:
        """Fetch or check the weights, then find out which model they are, and with which settings it fits."""
        ensure(self.found, self.settings, self.readiness.weights)
        folder = inspect(self.found.path)
        fit = self.readiness.fit = self._fit(folder)
        self.readiness.image_tokens = folder.image_token_range(self.settings.hd_num)
        log.info("memory: %s", fit)
        facts = {"model": folder.served_name, "engine": self.choice.engine}
        self.service.metrics.model.info(facts | {"session_len": str(fit.session_len)})
        return Fitted(folder, fit)

    @property
    def limited(self) -> Settings:
        """The settings with this worker's own share of its card."""
        share_mib = self.assigned.memory_mib or self.settings.gpu_memory_mib
        return self.settings.model_copy(update={"gpu_memory_mib": share_mib})

    def _fit(self, folder: ModelFolder) -> Fit | CpuFit:
        device, share_mib = self.assigned.device, self.assigned.memory_mib
        if device is not None:
            return fit_when_free(folder, partial(look_at, device), self.limited)
        if share_mib is not None:
            return fit_on_cpu(folder, min(share_mib, available_mib()), self.settings)
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
        return build_engine(self._with_more(needs))

    def _with_more(self, needs: EngineNeeds) -> EngineNeeds:
        """The needs, with what this kind of worker has besides."""
        return needs

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
        if not self.is_awaited:
            await generator.grammars.warm_up()
        log.info("prompts in the form %(form)s, %(template_tokens)d tokens around a picture", self.readiness.prompt)
        from lingbi.worker.probe import ask_probe

        probe = await ask_probe(self.service, folder.is_demo)
        # A CPU keeps few sessions, and computing the template's text takes it as long as some answers.
        if not isinstance(fit, CpuFit) and not self.is_awaited:
            await generator.prime()
            # Each of several cards copies the features for itself.
            touch_ahead(kept_sessions * fit.cards, cast("GpuVisionModel", engine.vl_encoder.model).feature_bytes)
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
            cards=fit.cards if isinstance(fit := self.readiness.fit, Fit) else 0,
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


def restarts_file(settings: Settings) -> Path:
    """Where a worker's restarts are counted."""
    return settings.state_dir / "run" / f"worker-{settings.worker}.starts"


def exit_now(status: int) -> None:
    """End the process without waiting for the engine's threads, which never return."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def run_and_exit(live: Callable[[Settings], int] = serve) -> None:
    """Run, then end with main's status and without the interpreter's usual shutdown."""
    try:
        exit_now(main(live))
    except SystemExit as stop:
        exit_now(int(stop.code or 0))
