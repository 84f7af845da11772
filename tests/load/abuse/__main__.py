"""Whether one visitor or one key can take lingbi away from the others: `python -m tests.load.abuse`.

It starts a stack of its own with the demo model, page and gateway, natively, or in containers with `--compose`; or takes one
that runs, with `--url URL --key-file FILE`. Twelve honest visitors and keys ask about pictures and texts, and every answer is judged by
its content: first without attack, then while each attack runs alone, then while all run together. A table says what
became of the answers, of the time to the first token, and of the stack's memory, disk and processes. The exit status is
1 when one of the bounds in bounds.py is not kept.
"""

import argparse
import json
import sys
from pathlib import Path

import httpx

from tests.load.abuse.addresses import OWN, SHARED, TOLD
from tests.load.abuse.attackers import ATTACKS, OLD_LOGIN
from tests.load.abuse.containers import Containers, running_project, url_of
from tests.load.abuse.processes import Processes
from tests.load.abuse.report import BASELINE, Phase, as_json, faults, outcomes, table
from tests.load.abuse.run import run_phase
from tests.load.abuse.stack import Stack, other_stack, own_stack
from tests.load.abuse.visitors import KINDS

TOGETHER = "together"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 every bound is kept, 1 not."""
    options = parse(arguments)
    attacks = options.attack or [*ATTACKS, TOGETHER, OLD_LOGIN]
    phases = phases_of(attacks, options)
    print(table(phases))
    for phase in phases:
        for fault in faults(phase, phases[0]):
            print(f"FAIL  {phase.name}: {fault}")
    if options.json:
        options.json.write_text(json.dumps(as_json(phases), indent=1) + "\n")
    return int(any(faults(phase, phases[0]) for phase in phases))


def phases_of(attacks: list[str], options: argparse.Namespace) -> list[Phase]:
    """The phases, each with what was seen."""
    if options.compose:
        with running_project(len(KINDS)) as (project, key_file):
            seen = Containers(project.project).processes()
            return of_other(attacks, options, other_stack(url_of(project), key_file, seen, TOLD))
    if options.url:
        seen = Containers(options.project).processes() if options.project else Processes(list, [])
        return of_other(attacks, options, other_stack(options.url, options.key_file, seen, addresses_of(options)))
    return of_own(attacks, options)


def addresses_of(options: argparse.Namespace) -> str:
    """Where the clients of a stack that runs already come from; Docker's proxy hides who connects."""
    is_beside = httpx.URL(options.url).host in ("127.0.0.1", "localhost") and not options.project
    return TOLD if options.forwarded else OWN if is_beside else SHARED


def of_other(attacks: list[str], options: argparse.Namespace, stack: Stack) -> list[Phase]:
    """The phases on a stack that runs already; a removed login is left out, as that needs one with logins."""
    phases: list[Phase] = []
    for name in (BASELINE, *attacks):
        if name != OLD_LOGIN:
            add(stack, name, options, phases)
    return phases


def of_own(attacks: list[str], options: argparse.Namespace) -> list[Phase]:
    """The phases on stacks of this run: a new one after each attack that keeps the last one busy."""
    phases: list[Phase] = []
    left = [BASELINE, *attacks]
    while left:
        has_logins = left[0] == OLD_LOGIN
        with own_stack(len(KINDS), has_logins) as stack:
            while left and (left[0] == OLD_LOGIN) == has_logins:
                add(stack, left.pop(0), options, phases)
                if phases[-1].rest_s is None:
                    break
    return phases


def add(stack: Stack, name: str, options: argparse.Namespace, phases: list[Phase]) -> None:
    attacks = {BASELINE: [], TOGETHER: list(ATTACKS)}.get(name, [name])
    phase = run_phase(stack, name, attacks, options.seconds, options.pause)
    phases.append(phase)
    lines = [f"{name}: {len(phase.answers)} honest answers", *outcomes(phase), *faults(phase, phases[0])]
    print("\n  ".join(lines), file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.abuse", description=__doc__)
    parser.add_argument("--compose", action="store_true", help="in containers, from images that are built first")
    parser.add_argument("--url", help="a stack that runs, without logins, in place of one of its own")
    parser.add_argument(
        "--key-file", type=Path, help="its keys, one a line: the last for the attackers, the others for the honest"
    )
    parser.add_argument("--project", help="its project of Compose, where its containers run on this machine")
    parser.add_argument(
        "--forwarded",
        action="store_true",
        help="tell it the clients' addresses in X-Forwarded-For: it trusts this machine (LINGBI_GATEWAY_TRUSTED_PROXIES)",
    )
    parser.add_argument("--seconds", type=float, default=30, help="of each attack")
    parser.add_argument("--pause", type=float, default=2, help="seconds that an honest visitor reads, on average")
    parser.add_argument(
        "--attack", action="append", choices=(*ATTACKS, OLD_LOGIN, TOGETHER), help="only this; again for more"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if bool(options.url) != bool(options.key_file):
        parser.error("--url and --key-file go together")
    if options.compose and options.url:
        parser.error("--compose starts a stack of its own, and --url names one that runs: give one of them")
    return options


if __name__ == "__main__":
    sys.exit(main())
