"""One worker process: one copy of the model, served over HTTP on its own port."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from functools import partial

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
from lingbi.model.gpus import CPU, TURBOMIND, emptied, find_gpus, look_at
from lingbi.model.host_memory import fit_on_cpu, workers_share_mib
from lingbi.model.sizing import fit_when_free
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.weights.start import ensure
from lingbi.worker.restarts import Restarts

log = logging.getLogger("lingbi.worker")
FAILURE_SHOWN_S = 3
GIVE_UP_MARGIN_S = 10
WEDGED_STATUS = 1


def main() -> int:
    """Run until SIGTERM; the exit status is 0, 1 (given up by the watchdog), 2 (configuration) or 3 (could not start)."""
    configure("INFO")
    try:
        settings = load_settings()
        configure(settings.log_level)
        with own_temporary_folder():
            return Worker(settings).run()
    except LingbiError as error:
        log.error("%s", error)
        return error.exit_status


class Worker:
    """Listens at once, loads the model in a thread, and is ready when a picture question is answered."""

    def __init__(self, settings: Settings):
        with uncollected():
            from lingbi.heartbeat import Vitals
            from lingbi.http.auth import KeyRing
            from lingbi.http.metrics import Metrics
            from lingbi.http.service import Service

        gpus = find_gpus()
        self.settings = settings
        # By what the cards hold at all: what is on one just now may be a worker that ends.
        self.choice, self.found = planner.choose(settings, emptied(gpus))
        name = (planner.identify(self.found) or self.found).served_name
        ensure_keys(settings.hashed_key_file(), settings.key_file())
        self.exit_status = 0
        if self.choice.engine == TURBOMIND:
            # lmdeploy's encoder is fixed to cuda:0, so a worker sees its own GPU only.
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
        return self.service.readiness

    def run(self) -> int:
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
            self._prepare()
            self.readiness.enter(LOADING)
            engine = self._build()
            self.readiness.enter(PROBING)
            self._probe(engine)
            keep_from_collector()
            if self.server.deadline is None:
                self.readiness.enter(READY)
                log.info("ready: %s", self.readiness.probe)
                self._watch()
        except Exception as error:  # the end of a thread: report, and end the process
            self._fail(error)

    def _prepare(self) -> None:
        """Fetch or check the weights, then say which model this is, and with which settings it fits."""
        self.readiness.enter(PREPARING)
        ensure(self.found, self.settings, self.readiness.weights)
        self.folder: ModelFolder = inspect(self.found.path)
        if self.choice.engine == TURBOMIND:
            self.readiness.fit = fit_when_free(self.folder, partial(look_at, self.device), self.settings)
        else:
            share_mib = workers_share_mib(self.settings.workers or 1)
            self.readiness.fit = fit_on_cpu(self.folder, share_mib, self.settings)
        log.info("memory: %s", self.readiness.fit)
        facts = {"model": self.folder.served_name, "engine": self.choice.engine}
        self.service.metrics.model.info(facts | {"session_len": str(self.readiness.fit.session_len)})

    def _build(self):
        with uncollected():
            from lingbi.engine.build import build_engine
            from lingbi.engine.local import EngineNeeds

        readiness = self.readiness
        needs = EngineNeeds(
            self.folder,
            self.settings,
            readiness.fit,
            on_vision_loaded=lambda: readiness.enter(LOADING_MODEL),
            on_weights=readiness.weights_loaded,
        )
        return build_engine(needs)

    def _probe(self, engine) -> None:
        future = asyncio.run_coroutine_threadsafe(self._serve(engine), self.server.loop)
        self.readiness.probe = future.result(self.settings.load_timeout_s)

    async def _serve(self, engine) -> dict:
        is_cpu, fit, kept_sessions = self.choice.engine == CPU, self.readiness.fit, self.settings.kept_sessions
        self.service.take_engine(engine, fit.max_batch_size, fit.kept_sessions if is_cpu else kept_sessions)
        self.service.metrics.kv_capacity.set(fit.cache_tokens)
        hd_num = self.settings.hd_num if self.folder.is_tiled else None
        self.readiness.prompt = self.service.generator.prompt_facts() | {"hd_num": hd_num}
        log.info("prompts in the form %(form)s, %(template_tokens)d tokens around a picture", self.readiness.prompt)
        from lingbi.worker.probe import ask_probe

        probe = await ask_probe(self.service, self.folder.is_demo)
        if not is_cpu:  # where the template's words cost as much as an answer to some, and sessions are few
            await self.service.generator.prime()
            touch_ahead(kept_sessions, engine.vl_encoder.model.feature_bytes)
        return probe

    def _watch(self) -> None:
        from lingbi.worker.watchdog import Watchdog

        self.watchdog = Watchdog(
            self.service,
            self.server.loop,
            self._give_up,
            self.settings.watchdog_interval_s,
            self.settings.watchdog_timeout_s,
            is_demo=self.folder.is_demo,
            uses_gpu=self.choice.engine == TURBOMIND,
        )
        self.watchdog.start()

    def _give_up(self, reason: str) -> None:
        """Let what can still finish do so, then end; supervisor starts a new worker."""
        self.restarts.note("wedged")
        self.exit_status = WEDGED_STATUS
        self.server.drain(WEDGED, reason)
        time.sleep(self.settings.drain_timeout_s + GIVE_UP_MARGIN_S)
        exit_now(WEDGED_STATUS)  # the event loop stands still too

    def _fail(self, error: Exception) -> None:
        if isinstance(error, LingbiError):
            log.error("%s", error)
        else:
            log.exception("the model did not load")
        self.readiness.enter(FAILED, str(error))
        self.exit_status = getattr(error, "exit_status", StartError.exit_status)
        self.restarts.note("failed")
        # Let whoever watches /ready read why, before supervisor starts the next try.
        time.sleep(FAILURE_SHOWN_S)
        self.server.should_exit = True


def exit_now(status: int) -> None:
    """End without waiting for the engine's threads, which never return."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def run_and_exit() -> None:
    """End with main's status, and without the interpreter's orderly end."""
    try:
        exit_now(main())
    except SystemExit as stop:
        exit_now(stop.code or 0)
