"""Waits for a stack to come up: within a limit, with progress, and with an early end if it cannot come up."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from host import stack
from host.env_file import ROOT
from host.errors import StartFailed
from host.machine import run

POLL_S, TELL_EVERY_S, ANSWER_S = 1.0, 5.0, 30.0
MOST_RESTARTS = 3
CRASHES_S = 30  # MOST_RESTARTS of a service that crashes immediately take less
BESIDE_LOADING_S = 120  # for page and gateway, and for Compose itself
LOG_LINE = re.compile(r"^(\S+) +\|", re.M)
SERVICE, PHASE = "com.docker.compose.service", "weights"
Container = dict[str, Any]  # a container in the output of `docker inspect`
Say = Callable[[str], None]


def bring_up(load_timeout_s: int, say: Say) -> None:
    """Run `docker compose up --wait`; stop it if a service keeps restarting. Raises StartFailed with all logs' ends."""
    before = {container["Id"]: container["RestartCount"] for container in containers()}
    up = subprocess.Popen(
        stack.compose_command("up", "--detach", "--wait", "--no-build", "--remove-orphans"),
        cwd=str(ROOT),
        env=stack.clean_environment(),
    )
    try:
        watch(up, before, load_timeout_s + BESIDE_LOADING_S, say)
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait()
    if up.returncode:
        raise failure(ends_again(before) or "the containers did not come up")


def watch(up: subprocess.Popen[bytes], before: dict[str, int], limit_s: float, say: Say) -> None:
    """Return when Compose ends. Raises StartFailed if a service keeps restarting or the time is up."""
    deadline, told_at, told = time.monotonic() + limit_s, time.monotonic(), ""
    while up.poll() is None:
        found = containers()
        fault = restarting(found, before)
        if is_fetching(found):  # a fetch has its own timeout (LINGBI_FETCH_PATIENCE_S)
            deadline = time.monotonic() + limit_s
            if time.monotonic() - told_at > TELL_EVERY_S:
                told_at, told = time.monotonic(), tell(found, told, say)
        elif time.monotonic() > deadline:
            fault = f"not all were up within {limit_s:.0f} s"
        if fault:
            raise failure(fault)
        time.sleep(POLL_S)


def failure(fault: str) -> StartFailed:
    return StartFailed(f"{fault}; scripts/down ends them all; the ends of all logs:\n{log_tail()}")


def ends_again(before: dict[str, int]) -> str:
    """Which service keeps restarting, after Compose saw one of its exits and gave up; or ""."""
    deadline = time.monotonic() + CRASHES_S
    while time.monotonic() < deadline:
        found = containers()
        fault = restarting(found, before)
        if fault or not any(restarts(item, before) or item["State"]["Status"] == "restarting" for item in found):
            return fault
        time.sleep(POLL_S)
    return ""


def containers() -> list[Container]:
    """What Docker knows about the stack's containers."""
    names = stack.compose("ps", "--all", "--quiet", shown=False).stdout.split()
    found: list[Container] = json.loads(run("docker", "inspect", *names).stdout or "[]") if names else []
    return found


def restarting(found: list[Container], before: dict[str, int]) -> str:
    """Which service keeps restarting, or ""."""
    for container in found:
        if restarts(container, before) >= MOST_RESTARTS:
            return f"{name_of(container)} ended {restarts(container, before)} times"
    return ""


def restarts(container: Container, before: dict[str, int]) -> int:
    """How often Docker has restarted a container since then."""
    return int(container["RestartCount"]) - before.get(container["Id"], 0)


def is_fetching(found: list[Container]) -> bool:
    return any(name_of(item) == PHASE and item["State"]["Status"] in ("running", "restarting") for item in found)


def tell(found: list[Container], told: str, say: Say) -> str:
    """Pass on the last line of the fetch's log, if it is new; returns it."""
    [container] = [item for item in found if name_of(item) == PHASE]
    done = run("docker", "logs", "--tail=1", container["Id"])
    line = stack.message_of(done.stdout + done.stderr)
    if line and line != told:
        say(f"weights {line}")
    return line


def name_of(container: Container) -> str:
    return str(container["Config"]["Labels"][SERVICE])


def wait_answer(url: str, servers: str) -> dict[str, str]:
    """Wait until a server behind the gateway is ready; returns its report. Raises StartFailed with the last answer."""
    deadline = time.monotonic() + ANSWER_S
    while True:
        report, fault = ask(f"{url}/ready")
        if report is not None:
            return report
        if time.monotonic() > deadline:
            raise StartFailed(
                f"all containers are up, and no server is ready at {url}/ready: {fault}; "
                + (f"are LINGBI_GATEWAY_SERVERS={servers} in .env the right ones?" if servers else "see its log")
            )
        time.sleep(POLL_S)


def ask(url: str) -> tuple[dict[str, str] | None, str]:
    """(JSON, "") of a GET with status 200, else (None, reason). The certificate is not verified."""
    context = ssl._create_unverified_context() if url.startswith("https") else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])
    )
    try:
        with opener.open(url, timeout=10) as response:
            return json.load(response), ""
    except urllib.error.HTTPError as error:
        return None, f"status {error.code}: {error.read(200).decode(errors='replace')}"
    except (OSError, ValueError) as error:
        return None, str(error)


def log_tail() -> str:
    """The ends of all services' logs."""
    told = stack.compose("logs", "--no-color", "--tail=15", shown=False).stdout
    return aligned(told.replace("\x1b[2K", ""))  # Compose clears lines even with --no-color


def aligned(told: str) -> str:
    """Log lines with the services' names in one column, which Compose makes only as wide as the names seen so far."""
    width = max((len(name) for name in LOG_LINE.findall(told)), default=0)
    return LOG_LINE.sub(lambda match: f"{match[1]:<{width}}  |", told)
