"""scripts/up: start what launch/plan.py decides under supervisord, wait until it answers, and say how to call it."""

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.request import getproxies

import httpx

from lingbi.errors import ConfigurationError, LingbiError, StartError
from lingbi.http.auth import ensure_keys, ensure_page_key
from lingbi.http.readiness import FAILED, PROBE_QUESTION, probe_messages
from lingbi.images import scenes
from lingbi.launch.edge import wait_front
from lingbi.launch.plan import Plan, decide, page_key_file, resolved
from lingbi.launch.supervision import POLL_S, Supervisor, environment, log_tail, only_one, record_file
from lingbi.model.resources import find_resources
from lingbi.settings import Settings, load_settings
from lingbi.weights.progress import Progress, Report, shown
from lingbi.weights.start import check_on_hub

REPORTED = ("url", "api_key_file", "model", "engine", "seconds")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ABORT_TIMEOUT_S = 10  # nothing has been answered yet, so there is nothing to drain
PAGE_REQUESTS = 64  # concurrent requests of all visitors together, independent of LINGBI_KEY_CONCURRENCY
FAILED_STATES = {"BACKOFF", "FATAL", "EXITED", "UNKNOWN"}


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM, or a closed terminal; number: the signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 up, 2 configuration or already up, 3 could not start, 130, 143 or 129 interrupted."""
    options = parse(arguments)
    interrupt_at_signals()
    try:
        settings = settings_of(options)
        with only_one(settings.state_dir):
            record = bring_up(settings, options)
    except LingbiError as error:
        say(f"error: {error}")
        return error.exit_status
    except Interrupted as interrupted:
        say("interrupted: nothing is left running")
        return 128 + interrupted.number
    report = {name: record[name] for name in REPORTED}
    print(json.dumps(report) if options.json else how_to_call(record, options.server_only), flush=True)
    return 0


def interrupt_at_signals() -> None:
    """Raise Interrupted at the first terminating signal; a signal that is ignored (nohup) stays ignored."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    hold_signals()
    raise Interrupted(number)


def hold_signals() -> None:
    """Ignore further signals: a second Ctrl-C would interrupt the cleanup and leave processes running."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Start lingbi on this machine, in the background.")
    parser.add_argument("--model", help="folder, vl-7b, 7b, 4khd-7b, vl-1_8b, ModelScope id, demo, or auto (default)")
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 6006; the first worker's 23333 if alone)")
    parser.add_argument("--server-only", action="store_true", help="workers without page and gateway: no nginx needed")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last, progress to stderr")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> Settings:
    alone = {"host": options.host, "port": options.port} if options.server_only else {}
    settings = load_settings(model=options.model, engine=options.engine, **alone)
    update = {
        "state_dir": settings.state_dir.resolve(),  # one spelling of the path: processes are identified by it
        "models_dir": settings.models_dir.absolute(),
        "api_key_file": settings.key_file().absolute(),
        "keys_file": settings.hashed_key_file().absolute(),
    }
    return settings.model_copy(update=update)


def bring_up(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Start everything; returns the report of scripts/up, plus "ca_file"."""
    start = time.monotonic()
    supervisor = Supervisor(settings.state_dir)
    check_not_running(supervisor)
    plan = decide(settings, options, find_resources())
    placement = plan.placement
    say(f"model   {placement.served_name}: {placement.found.reason}")
    say(f"engine  {placement.choice.engine}: {placement.choice.reason}")
    for worker, fit in enumerate(placement.fits):
        say(f"memory  worker {worker}: {fit}")
    check_on_hub(placement.found, settings)
    ensure_keys(settings.hashed_key_file(), settings.key_file())
    if plan.front:
        ensure_page_key(settings.hashed_key_file(), page_key_file(settings), PAGE_REQUESTS)
    try:
        supervisor.start(environment(resolved(plan), placement.workers) | (plan.front.values if plan.front else {}))
        if plan.front:
            say(f"page    {plan.front.url} (it shows the progress of loading)")
        wait_ready(plan, supervisor)
        if plan.front:
            wait_front(plan.front, supervisor, FAILED_STATES)
    except BaseException:  # also Ctrl-C: nothing may be left running
        hold_signals()
        supervisor.stop(ABORT_TIMEOUT_S)
        raise
    record = {
        "url": plan.url,
        "api_key_file": str(settings.key_file()),
        "model": placement.served_name,
        "engine": placement.choice.engine,
        "seconds": round(time.monotonic() - start, 1),
        "ca_file": plan.front.ca_file if plan.front else None,
    }
    record_file(settings.state_dir).write_text(json.dumps(record))
    return record


def check_not_running(supervisor: Supervisor) -> None:
    record = record_file(supervisor.state_dir)
    if supervisor.process():
        where = json.loads(record.read_text())["url"] if record.exists() else "(still starting)"
        raise ConfigurationError(f"lingbi is already up: {where}; use scripts/down first, or scripts/smoke to check it")
    left = supervisor.left()
    if left:
        names = ", ".join(str(process.pid) for process in left)
        raise ConfigurationError(
            f"processes of an earlier start are left without their supervisor ({names}); use scripts/down first"
        )
    record.unlink(missing_ok=True)


def wait_ready(plan: Plan, supervisor: Supervisor) -> None:
    """Show each worker's phases until all are ready; raise StartError with the end of the log if one fails."""
    for worker in range(plan.placement.workers):
        wait_worker(f"worker-{worker}", f"{plan.worker_url(worker)}/ready", plan.settings, supervisor)


def wait_worker(name: str, url: str, settings: Settings, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + settings.load_timeout_s
    shown_phase, progress = None, Progress()
    # Only one client: creating one reads all CA certificates, which takes 50 ms of the CPU that the worker needs.
    with shown(progress), httpx.Client(timeout=5, trust_env=False) as client:
        while True:
            status, phase, fetched = ask_ready(client, url)
            progress.set(fetched)
            if fetched:  # a fetch has its own timeout
                deadline = time.monotonic() + settings.load_timeout_s
            if phase != shown_phase:
                say(f"{name}  {phase}")
                shown_phase = phase
            if status == 200:
                return
            fault = find_fault(phase, supervisor.states().get(name, "UNKNOWN"))
            if time.monotonic() > deadline:
                fault = fault or f"was not ready within {settings.load_timeout_s} s"
            if fault:
                raise StartError(f"{name} {fault}; the end of its log:\n{log_tail(settings.state_dir, name)}")
            time.sleep(POLL_S)


def find_fault(phase: str, state: str) -> str | None:
    """Why a worker in this phase and supervisor state will not become ready, or None."""
    if state in FAILED_STATES:
        return f"ended ({state})"
    return "could not load the model" if phase == FAILED else None


def ask_ready(client: httpx.Client, url: str) -> tuple[int | None, str, Report | None]:
    """(HTTP status or None, phase, progress of fetching or None) of a worker."""
    try:
        response = client.get(url)
        report = response.json()
        return response.status_code, report["phase"], report.get("weights")
    except (httpx.HTTPError, ValueError):
        return None, "starting", None


def how_to_call(report: dict[str, Any], is_alone: bool) -> str:
    file = Path(report["api_key_file"])
    key = file.read_text().split()[0] if file.exists() else "YOUR_KEY"
    return "\n".join(
        [
            "",
            f"lingbi is up after {report['seconds']} s.",
            *([] if is_alone else [f"  page     {report['url']}"]),
            f"  API      {report['url']}/v1",
            f"  API key  {key}   (in {report['api_key_file']})",
            f"  model    {report['model']} on {report['engine']}",
            "Ask it about a picture (paste this line):",
            "",
            curl_line(report["url"], key, report["model"], report.get("ca_file")),
            "",
            "scripts/smoke checks it, scripts/down ends it.",
        ]
    )


def curl_line(url: str, key: str, model: str, ca_file: str | None = None) -> str:
    """A command that asks about a small drawn picture and works when pasted."""
    scene = scenes.Scene((scenes.Thing("blue", "star", size=0.8),), width=64, height=64)
    image = scenes.draw(scene).quantize(16)
    body = {"model": model, "messages": probe_messages(image, PROBE_QUESTION)}
    words = ["curl", "-s", f"{url}/v1/chat/completions", "-H", f"Authorization: Bearer {key}"]
    words += ["--cacert", ca_file] if ca_file else []
    words += ["--noproxy", "*"] if getproxies() else []  # for a proxy, this address may be another machine
    words += ["-H", "Content-Type: application/json", "-d", json.dumps(body, ensure_ascii=False)]
    return shlex.join(words)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
