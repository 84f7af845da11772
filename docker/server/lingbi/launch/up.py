"""scripts/up: start what launch/plan.py decides under supervisord, wait until it answers, and say how to call it."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from lingbi.accounts.key_file import ensure_keys, ensure_page_key
from lingbi.accounts.opening import check_accounts
from lingbi.client.addresses import record_file
from lingbi.errors import ConfigurationError, LingbiError, StartError
from lingbi.http.readiness import FAILED
from lingbi.launch.edge import PROGRAMS, wait_front
from lingbi.launch.plan import PAGE_REQUESTS, Plan, decide, page_key_file, resolved, write_placement
from lingbi.launch.starts import given_start, how_to_call, line, read_start, start_file, write_start
from lingbi.launch.supervision import (
    POLL_S,
    STOP_MARGIN_S,
    Supervisor,
    environment,
    included,
    log_tail,
    only_one,
)
from lingbi.launch.systemd.manager import unit_of
from lingbi.model.resources import find_resources, unoccupied
from lingbi.model.wanted import Joined
from lingbi.settings import Settings, load_settings
from lingbi.signals import Interrupted, end_at_signals, hold_signals, interrupt_at_signals
from lingbi.weights.progress import Progress, Report, shown
from lingbi.weights.start import check_on_hub, ensure

REPORTED = ("url", "api_key_file", "model", "models", "engine", "seconds")
ABORT_TIMEOUT_S = 10  # nothing has been answered yet, so there is nothing to drain
FAILED_STATES = {"BACKOFF", "FATAL", "EXITED", "UNKNOWN"}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 up, 2 configuration or already up, 3 could not start, 130, 143 or 129 interrupted."""
    options = parse(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    interrupt_at_signals()
    try:
        settings = settings_of(options)
        with only_one(settings.state_dir):
            record = bring_up(settings, options)
    except LingbiError as error:
        say(f"error: {error}")
        return error.exit_status
    except Interrupted as interrupted:
        goes_on = Supervisor(load_settings().state_dir.resolve()).process()
        say(f"interrupted: {'what ran goes on' if goes_on else 'nothing is left running'}")
        return 128 + interrupted.number
    report = {name: record[name] for name in REPORTED if name in record}
    print(json.dumps(report) if options.json else how_to_call(record, options.server_only), flush=True)
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/up",
        description="Start lingbi on this machine natively, in the background.",
        epilog="--native starts so where a usable Docker engine is, too. In containers: scripts/up --docker --help",
    )
    add_options(parser)
    parser.add_argument("--verbose", action="store_true", help=argparse.SUPPRESS)  # of builds: nothing is built here
    parser.add_argument("--json", action="store_true", help="print one line of JSON last, progress to stderr")
    return parser.parse_args(arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What scripts/up and scripts/service install are told alike."""
    parser.add_argument(
        "--model",
        action=Joined,
        help="folder, vl-7b, 7b, 4khd-7b, vl-1_8b, ModelScope id, demo, or auto (default); NAME*3: three workers",
    )
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 6006; the first worker's 23333 if alone)")
    parser.add_argument("--server-only", action="store_true", help="workers without page and gateway: no nginx needed")


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
    check_no_unit(settings.state_dir)
    is_change = is_changed(supervisor, options)
    plan = prepare(settings, options, is_change)
    if is_change:
        bring_weights(plan)
    try:
        if is_change:
            end_former(supervisor, settings)
        make_keys(plan)
        write_placement(plan)
        supervisor.start(values_of(plan))
        if plan.front:
            say(f"page    {plan.front.url} (it shows the progress of loading)")
        wait_ready(plan, supervisor)
        if plan.front:
            wait_front(plan.front, supervisor, FAILED_STATES)
    except BaseException:  # also Ctrl-C: nothing may be left running
        hold_signals()
        supervisor.stop(ABORT_TIMEOUT_S)
        raise
    record = record_of(plan, round(time.monotonic() - start, 1))
    record_file(settings.state_dir).write_text(json.dumps(record))
    write_start(settings.state_dir, "scripts/up", options.given)
    return record


def is_changed(supervisor: Supervisor, options: argparse.Namespace) -> bool:
    """Whether scripts/up started what runs, and is asked now for another model, engine or address."""
    if not supervisor.process() or not start_file(supervisor.state_dir).exists():
        return False
    asked = options.model or options.engine or options.host or options.port
    return bool(asked) and read_start(supervisor.state_dir) != given_start(options.given)


def prepare(settings: Settings, options: argparse.Namespace, is_change: bool = False) -> Plan:
    """Decide everything, or refuse it, and say what was decided. is_change: what runs is replaced, and frees its memory."""
    supervisor = Supervisor(settings.state_dir)
    if not is_change:
        check_not_running(supervisor)
    resources = find_resources()
    check_accounts(settings)
    plan = decide(settings, options, unoccupied(resources) if is_change else resources, supervisor.ports())
    say("\n".join(plan.placement.lines()))
    progress = Progress()
    with shown(progress):
        for seat in plan.placement.models:
            check_on_hub(seat.found, settings, progress)
    return plan


def bring_weights(plan: Plan) -> None:
    """Fetch and verify the weights beside what runs, which goes on whatever happens here."""
    progress = Progress()
    end_at_signals("; what ran goes on")
    try:
        with shown(progress):
            for seat in plan.placement.models:
                ensure(seat.found, plan.settings, progress)
    except LingbiError:
        say("what ran goes on")
        raise
    interrupt_at_signals()


def end_former(supervisor: Supervisor, settings: Settings) -> None:
    """End what runs, once its answers are finished."""
    say(f"weights are there; ending what runs (to go back: {line('scripts/up', *read_start(settings.state_dir))})")
    supervisor.stop(settings.drain_timeout_s + STOP_MARGIN_S)
    check_not_running(supervisor)


def make_keys(plan: Plan) -> None:
    """The operator's and the page's own keys, made where they are missing."""
    settings = plan.settings
    ensure_keys(settings.hashed_key_file(), settings.key_file())
    if plan.front:
        ensure_page_key(settings.hashed_key_file(), page_key_file(settings), PAGE_REQUESTS)


def values_of(plan: Plan) -> dict[str, str]:
    """The environment of supervisord and all that it starts."""
    values = environment(resolved(plan), plan.placement.workers)
    if plan.front:
        values |= plan.front.values | {"SUPERVISOR_INCLUDE": included(plan.settings, PROGRAMS)}
    return values


def record_of(plan: Plan, seconds: float | None) -> dict[str, Any]:
    """The report of scripts/up, and what scripts/smoke needs besides. seconds: None where nobody waited."""
    return {
        "url": plan.url,
        "api_key_file": str(plan.settings.key_file()),
        **plan.placement.names(),
        "engine": plan.placement.choice.engine,
        "seconds": seconds,
        "ca_file": plan.front.ca_file if plan.front else None,
    }


def check_no_unit(state_dir: Path) -> None:
    """Raise ConfigurationError where a systemd unit runs this stack: at its next start it would meet ours."""
    unit = unit_of(state_dir)
    if unit:
        raise ConfigurationError(
            f"lingbi is the service {unit.name} here; use scripts/service start, stop and status, "
            "or scripts/service remove to start it without systemd"
        )


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
    for worker, model in enumerate(plan.placement.labels()):
        wait_worker(f"worker-{worker}", f"{plan.worker_url(worker)}/ready", plan.settings, supervisor, model)


def wait_worker(name: str, url: str, settings: Settings, supervisor: Supervisor, model: str = "") -> None:
    """Show a worker's phases until it is ready. model: what it serves, where there are several."""
    whose = f"{name} ({model})" if model else name
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
                say(f"{whose}  {phase}")
                shown_phase = phase
            if status == 200:
                return
            fault = find_fault(phase, supervisor.states().get(name, "UNKNOWN"))
            if time.monotonic() > deadline:
                fault = fault or f"was not ready within {settings.load_timeout_s} s"
            if fault:
                raise StartError(f"{whose} {fault}; the end of its log:\n{log_tail(settings.state_dir, name)}")
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


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
