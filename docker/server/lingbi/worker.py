"""One worker process: one copy of the model, served over HTTP on its own port."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time

from lingbi.engines.choice import TURBOMIND, choose_engine, find_gpus
from lingbi.errors import LingbiError, StartError
from lingbi.keys import ensure_keys
from lingbi.model_folder import ModelFolder, inspect
from lingbi.models import find_model
from lingbi.readiness import FAILED, LOADING, PREPARING, PROBING, READY, Readiness, ask_probe
from lingbi.settings import Settings, load_settings
from lingbi.weights.progress import Progress
from lingbi.weights.start import check_may_fetch, ensure

log = logging.getLogger("lingbi.worker")
FAILURE_SHOWN_S = 3


def main() -> int:
    """Run until SIGTERM; the exit status is 0, 2 (configuration) or 3 (could not start)."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = load_settings()
        logging.getLogger().setLevel(settings.log_level)
        return Worker(settings).run()
    except LingbiError as error:
        log.error("%s", error)
        return error.exit_status


class Worker:
    """Listens at once, loads the model in a thread, and is ready when a picture question is answered."""

    def __init__(self, settings: Settings):
        gpus = find_gpus()
        self.settings = settings
        self.choice = choose_engine(settings.engine, gpus)
        self.found = find_model(settings.model, settings.models_dir)
        check_may_fetch(self.found, settings)
        name = self.found.served_name if self.found.is_to_come else inspect(self.found.path).served_name
        self.readiness = Readiness(name, self.choice.engine, self.choice.reason, progress=Progress())
        self.keys = ensure_keys(settings.key_file())
        self.exit_status = 0
        if self.choice.engine == TURBOMIND:
            # lmdeploy's encoder is fixed to cuda:0, so a worker sees its own GPU only.
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[settings.worker % len(gpus)].device
        log.info("model %s, engine %s: %s", name, self.choice.engine, self.choice.reason)

    def run(self) -> int:
        import uvicorn

        from lingbi import api

        app = api.create_app(self.readiness, self.keys)
        config = uvicorn.Config(
            app,
            host=self.settings.host,
            port=self.settings.port + self.settings.worker,
            log_level=self.settings.log_level.lower(),
            access_log=False,
            timeout_graceful_shutdown=self.settings.drain_timeout_s,
        )
        self.server = uvicorn.Server(config)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again when it has drained
        threading.Thread(target=self._load, name="load", daemon=True).start()
        self.server.run()
        return self.exit_status

    def _load(self) -> None:
        try:
            self.readiness.enter(PREPARING)
            ensure(self.found, self.settings, self.readiness.progress)
            self.folder: ModelFolder = inspect(self.found.path)
            self.readiness.enter(LOADING)
            engine = build_engine(self.folder, self.settings)
            self.readiness.enter(PROBING)
            self._probe(engine)
            self.readiness.enter(READY)
            log.info("ready: %s", self.readiness.probe)
        except Exception as error:  # the end of a thread: report, and end the process
            self._fail(error)

    def _probe(self, engine) -> None:
        from lingbi import api

        api.serve_engine(engine)
        question = ask_probe(engine, self.folder.is_demo, api.next_session_id())
        self.readiness.probe = asyncio.run(asyncio.wait_for(question, self.settings.load_timeout_s))

    def _fail(self, error: Exception) -> None:
        if isinstance(error, LingbiError):
            log.error("%s", error)
        else:
            log.exception("the model did not load")
        self.readiness.error = str(error)
        self.readiness.enter(FAILED)
        self.exit_status = getattr(error, "exit_status", StartError.exit_status)
        # Let whoever watches /ready read why, before supervisor starts the next try.
        time.sleep(FAILURE_SHOWN_S)
        self.server.should_exit = True


def build_engine(folder: ModelFolder, settings: Settings):
    """lmdeploy's VLAsyncEngine for a model folder, on the engine that the machine gets (see hook.py)."""
    from lmdeploy.messages import TurbomindEngineConfig
    from lmdeploy.serve.vl_async_engine import VLAsyncEngine
    from lmdeploy.utils import get_logger

    # lmdeploy logs whole prompts at INFO; people's questions do not belong in a log.
    get_logger("lmdeploy").setLevel("DEBUG" if settings.log_level == "DEBUG" else "WARNING")
    config = TurbomindEngineConfig(
        session_len=settings.session_len or folder.session_len,
        max_batch_size=settings.max_batch_size,
        cache_max_entry_count=settings.cache_fraction,
        quant_policy=int(settings.quant_policy),
    )
    return VLAsyncEngine(os.fspath(folder.path), backend_config=config)


def exit_now(status: int) -> None:
    """End without waiting for the engine's threads, which never return."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        exit_now(main())
    except SystemExit as stop:
        exit_now(stop.code or 0)
