"""Runs the phases: starts both sides, watches the stack meanwhile, and waits until it is at rest."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from tests.conftest import ROOT
from tests.load.abuse.bounds import MAX_REST_S, MAX_WAIT_S, REST_CORES
from tests.load.abuse.processes import Processes, Seen, tree
from tests.load.abuse.report import Phase
from tests.load.abuse.stack import Stack
from tests.load.abuse.trust import AUTHORITIES
from tests.load.abuse.visitors import Answer

LOOK_S, CALM_S = 0.25, 1.0
ENDING_S = 30
REST_WAIT_S = 1.5 * MAX_REST_S


@dataclass
class Side:
    """A process of one side: it says "ready", begins when it is told to, and ends by saying what came of it."""

    process: subprocess.Popen

    def begin(self) -> None:
        assert self.process.stdout and self.process.stdin
        line = self.process.stdout.readline()
        assert line == "ready\n", f"{self.process.args} said {line!r}; its error output says why"
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self, timeout_s: float) -> Any:
        said, _ = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, f"{self.process.args} ended with {self.process.returncode}"
        return json.loads(said)


@contextlib.contextmanager
def side(module: str, task: dict, *wrapper: str, is_apart: bool = False) -> Iterator[Side]:
    """A process with this module of tests.load.abuse and its task.

    is_apart: in a session of its own, among which Linux shares the processors (sched(7), autogroups); nice(1) counts within
    one session only.
    """
    command = [*wrapper, sys.executable, "-m", f"tests.load.abuse.{module}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=is_apart
    )
    assert process.stdin
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    try:
        yield Side(process)
    finally:
        process.kill()
        process.wait()


def run_phase(stack: Stack, name: str, attacks: Sequence[str], seconds: float, pause_s: float) -> Phase:
    """Honest visitors for so long, and these attacks at the same time."""
    task = {"url": stack.url, "model": stack.model, "seconds": seconds, "addresses": stack.addresses}
    honest = task | {"keys": stack.keys, "texts": stack.texts, "login": stack.login, "pause_s": pause_s}
    hostile = task | {"key": stack.attackers_key, "cookies": stack.cookies, "event": stack.event}
    seen, found = Seen(), {}
    with contextlib.ExitStack() as sides:
        attackers = {
            attack: sides.enter_context(side("attackers", hostile | {"attack": attack}, "nice", "-n", "10"))
            for attack in attacks
        }
        visitors = sides.enter_context(side("visitors", honest, is_apart=True))
        meter = Meter(stack.processes)
        for one in (*attackers.values(), visitors):
            one.begin()
        begun = time.monotonic()
        meter.start()
        watch(stack.processes, seen, lambda: time.monotonic() < begun + seconds)
        other_cores = meter.other_cores()
        for attack, one in attackers.items():
            found[attack] = one.result(ENDING_S)
        ended = time.monotonic()
        answers = [Answer(**answer) for answer in visitors.result(2 * MAX_WAIT_S)]
    return Phase(name, answers, seen, rest(stack, ended), found, other_cores)


def watch(processes: Processes, seen: Seen, goes_on: Callable[[], bool]) -> None:
    while goes_on():
        processes.look(seen)
        time.sleep(LOOK_S)


class Meter:
    """How much of the processors neither the stack nor this run takes."""

    def __init__(self, processes: Processes):
        self.processes, self.since = processes, (0.0, 0.0, 0.0)

    def start(self) -> None:
        self.since = self._now()

    def other_cores(self) -> float:
        now, machine, ours = (after - before for after, before in zip(self._now(), self.since, strict=True))
        return max(0.0, (machine - ours) / now)

    def _now(self) -> tuple[float, float, float]:
        machine = psutil.cpu_times()
        busy = machine.user + machine.nice + machine.system + machine.softirq + machine.irq
        own = sum(sum(process.cpu_times()[:2]) for process in tree(psutil.Process()))
        return time.monotonic(), busy, self.processes.seconds() + own


def rest(stack: Stack, ended: float) -> float | None:
    """Seconds after the attack's end until the stack took next to nothing of a core for a while; None: not in time.

    ended: when the attack was over, on the monotonic clock.
    """
    while (begun := time.monotonic()) < ended + REST_WAIT_S:
        before = stack.processes.seconds()
        time.sleep(CALM_S)
        cores = (stack.processes.seconds() - before) / (time.monotonic() - begun)
        if cores < REST_CORES and is_answering(stack):
            return begun - ended
    return None


def is_answering(stack: Stack) -> bool:
    """Whether server and page answer at once."""
    try:
        with httpx.Client(base_url=stack.url, verify=AUTHORITIES, trust_env=False, timeout=CALM_S) as client:
            return all(client.get(path).status_code == 200 for path in ("/ready", "/live", "/page-health"))
    except httpx.HTTPError:
        return False
