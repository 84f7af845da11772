"""What our layer costs: lingbi's application and lmdeploy's bare one over the same engine, in turns.

`python -m tests.load.overhead` loads the demo model (or --model FOLDER) once, serves it by both on two
ports, and asks the same questions of each in alternating rounds. Prints requests/s and the time to
first token of each side and the ratios of the rounds, so that what else the machine does weighs on both.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import uvicorn

from tests.conftest import DEMO, ROOT, free_port
from tests.load.sides import compare, judge

TOKENS = 32
MAX_COST = 0.02
MAX_FIRST_TOKEN_MS = 5.0
SIDES = ("lingbi", "bare")


def load_service(model: Path, running: int, kept_sessions: int = 0):
    """A worker's Service of this process with its engine, without an HTTP server; as Service.take_engine."""
    from lingbi.accounts.key_file import ensure_keys
    from lingbi.accounts.ring import KeyRing
    from lingbi.engine.build import build_engine
    from lingbi.engine.local import EngineNeeds
    from lingbi.heartbeat import Vitals
    from lingbi.http.metrics import Metrics
    from lingbi.http.readiness import READY, Readiness
    from lingbi.http.service import Service
    from lingbi.model.resources import find_resources
    from lingbi.planner import plan
    from lingbi.settings import load_settings

    settings = load_settings(model=str(model), workers=1, cpu_sequences=running, max_batch_size=running)
    placement = plan(settings, find_resources())
    engine = build_engine(EngineNeeds(placement.model, settings, *placement.fits))
    ensure_keys(settings.hashed_key_file(), settings.key_file())
    readiness = Readiness(placement.served_name, placement.choice.engine, placement.choice.reason)
    service = Service(settings, readiness, KeyRing(settings.hashed_key_file()), Metrics(), Vitals())
    service.take_engine(engine, running, kept_sessions)
    readiness.enter(READY)
    return service


def serve_both(model: Path, ports: dict, running: int) -> None:
    """Both applications in this process, each on its own thread and event loop, over one engine."""
    from lmdeploy.serve.openai import api_server

    from lingbi.http.app import create_app

    service = load_service(model, running)
    api_server.VariableInterface.async_engine = service.generator.engine
    for name, app in (("lingbi", create_app(service)), ("bare", api_server.app)):
        options = {"port": ports[name], "log_level": "warning", "access_log": False}
        threading.Thread(target=uvicorn.run, args=(app,), kwargs=options, daemon=True).start()


def questions(model: str) -> dict:
    """Both sides take these: lmdeploy's refuses less, and understands fewer fields."""
    from lingbi.smoke.checks import data_url, turn
    from tests.client import QUESTION, SCENES

    options = {"model": model, "max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True, "stream": True}
    return {
        "text": options | {"messages": [{"role": "user", "content": "hello"}]},
        "picture": options | {"messages": [turn(QUESTION, data_url(SCENES[0]))]},
    }


def main(arguments=None) -> int:
    """Exit status: 0 within the bounds, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--count", type=int, default=16, help="requests of a side in a round")
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve_both(options.model, json.loads(options.serve), options.concurrent)
        threading.Event().wait()
    with tempfile.TemporaryDirectory() as folder:
        return measure_both(options, Path(folder))


def measure_both(options, state_dir: Path) -> int:
    ports = {side: free_port() for side in SIDES}
    command = [sys.executable, "-m", "tests.load.overhead", "--model", str(options.model), "--serve", json.dumps(ports)]
    environment = os.environ | {"LINGBI_STATE_DIR": str(state_dir), "PYTHONPATH": "docker/server:docker/pictures:."}
    process = subprocess.Popen([*command, "--concurrent", str(options.concurrent)], cwd=ROOT, env=environment)
    try:
        model = wait_for(ports, process)
        key = (state_dir / "api-key").read_text().strip()
        urls = {side: f"http://127.0.0.1:{port}" for side, port in ports.items()}
        failed = False
        for name, body in questions(model).items():
            report = judge(asyncio.run(compare(urls, key, body, options)), MAX_COST, MAX_FIRST_TOKEN_MS)
            failed |= not report["within_bounds"]
            print(json.dumps({"question": name} | report), flush=True)
        return int(failed)
    finally:
        process.kill()
        process.wait(10)


def wait_for(ports: dict, process) -> str:
    """The served model's name, once both sides answer."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{ports['lingbi']}/live", trust_env=False)
            url = f"http://127.0.0.1:{ports['bare']}/v1/models"
            return httpx.get(url, trust_env=False).json()["data"][0]["id"]
        except httpx.TransportError:
            time.sleep(0.5)
    raise SystemExit("the two servers did not come up")


if __name__ == "__main__":
    sys.exit(main())
