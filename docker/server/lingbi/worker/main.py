"""One worker process: one copy of the model, served over HTTP on its own port."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time

from lingbi.engine.prompt_forms import form_of
from lingbi.engine.turbomind.heap import share_one_heap, touch_ahead
from lingbi.errors import LingbiError, StartError
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
    ask_probe,
)
from lingbi.logs import adopt, configure
from lingbi.model.folder import ModelFolder, inspect
from lingbi.model.gpus import CPU, TURBOMIND, choose_engine, emptied, find_gpus
from lingbi.model.resolve import choose_model
from lingbi.model.sizing import Fit, fit_when_free
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.weights.start import check_may_fetch, ensure
from lingbi.worker.restarts import Restarts
from lingbi.worker.watchdog import Watchdog

log = logging.getLogger("lingbi.worker")
FAILURE_SHOWN_S = 3
CPU_INSTANCES = 64  # handles of the CPU engine; its own limit of answers is cpu_sequences
GIVE_UP_MARGIN_S = 10
# Python's own 5 ms are as long as a token takes, and a picture's way to the engine leads through several threads. On a
# GPU only: whoever waits wakes as often, which costs a CPU engine's cores.
THREAD_TURN_S = 1e-4
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
        self.choice = choose_engine(settings.engine, gpus)
        # By what the cards hold at all: what is on one just now may be a worker that ends.
        self.found = choose_model(settings, self.choice.engine, emptied(gpus), settings.workers or len(gpus))
        check_may_fetch(self.found, settings)
        name = self.found.served_name if self.found.is_to_come else inspect(self.found.path).served_name
        ensure_keys(settings.hashed_key_file(), settings.key_file())
        self.exit_status = 0
        if self.choice.engine == TURBOMIND:
            # lmdeploy's encoder is fixed to cuda:0, so a worker sees its own GPU only.
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[settings.worker % len(gpus)].device
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
            engine = build_engine(self.folder, self.settings, self.readiness.fit, self._after_vision)
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
            self.readiness.fit = fit_when_free(self.folder, lambda: find_gpus()[0], self.settings)
            log.info("GPU memory: %s", self.readiness.fit)
        facts = {"model": self.folder.served_name, "engine": self.choice.engine}
        fit = self.readiness.fit
        session_len = fit.session_len if fit else self.settings.session_len or self.folder.session_len
        self.service.metrics.model.info(facts | {"session_len": str(session_len)})

    def _after_vision(self) -> None:
        from lingbi.engine.turbomind import uploads

        self.readiness.enter(LOADING_MODEL)
        uploads.on_weights = self.readiness.weights_loaded

    def _probe(self, engine) -> None:
        future = asyncio.run_coroutine_threadsafe(self._serve(engine), self.server.loop)
        self.readiness.probe = future.result(self.settings.load_timeout_s)

    async def _serve(self, engine) -> dict:
        is_cpu = self.choice.engine == CPU
        settings = self.settings
        running = settings.cpu_sequences if is_cpu else self.readiness.fit.max_batch_size
        kept_sessions = settings.cpu_kept_sessions if is_cpu else settings.kept_sessions
        form = form_of(settings.prompt_form, self.folder, engine.chat_template)
        self.service.take_engine(engine, form, running, kept_sessions)
        hd_num = settings.hd_num if self.folder.is_tiled else None
        self.readiness.prompt = self.service.generator.prompt_facts() | {"hd_num": hd_num}
        log.info("prompts in the form %(form)s, %(template_tokens)d tokens around a picture", self.readiness.prompt)
        capacity = settings.cpu_sequences * engine.session_len if is_cpu else self.readiness.fit.cache_tokens
        self.service.metrics.kv_capacity.set(capacity)
        probe = await ask_probe(self.service, self.folder.is_demo)
        if not is_cpu:  # where the template's words cost as much as an answer to some, and sessions are few
            await self.service.generator.prime()
            touch_ahead(settings.kept_sessions, engine.vl_encoder.model.feature_bytes)
        return probe

    def _watch(self) -> None:
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


def build_engine(folder: ModelFolder, settings: Settings, fit: Fit | None = None, after_vision=lambda: None):
    """lmdeploy's VLAsyncEngine for a model folder, on the engine that the machine gets (see hook.py).

    fit: its settings on a GPU, None on the CPU; after_vision is called when the vision tower is loaded, before the
    language model is.
    """
    with uncollected():
        from lmdeploy.messages import TurbomindEngineConfig
        from lmdeploy.serve.vl_async_engine import VLAsyncEngine
        from lmdeploy.utils import get_logger

        from lingbi.engine import patches

    # lmdeploy logs whole prompts at INFO; people's questions do not belong in a log.
    os.environ.setdefault("TM_LOG_LEVEL", "INFO" if settings.log_level == "DEBUG" else "ERROR")
    logger = get_logger("lmdeploy")
    logger.setLevel("DEBUG" if settings.log_level == "DEBUG" else "WARNING")
    adopt(logger)
    config = TurbomindEngineConfig(session_len=settings.session_len or folder.session_len, max_batch_size=CPU_INSTANCES)
    if fit:
        from lingbi.engine.turbomind.workspaces import shrink_reserves

        shrink_reserves()
        sys.setswitchinterval(THREAD_TURN_S)
        config = TurbomindEngineConfig(
            session_len=fit.session_len,
            max_batch_size=fit.max_batch_size,
            quant_policy=int(fit.quant_policy),
            max_prefill_token_num=fit.prefill_tokens,
        )
        # TurboMind takes 1 and more as a number of blocks; the config's own check knows shares only.
        config.cache_max_entry_count = float(fit.blocks)
    patches.after_vision = after_vision
    return VLAsyncEngine(os.fspath(folder.path), backend_config=config)


@contextlib.contextmanager
def uncollected():
    """No garbage collection in the block: what an import makes stays, and every full one looks at all of it again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_from_collector() -> None:
    """Take what is there now out of Python's garbage collection.

    A full one looks at some 270 000 objects of the libraries, and meanwhile no stream moves.
    """
    gc.collect()
    gc.freeze()


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
