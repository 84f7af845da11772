"""Check what a server would meet on this machine, without starting it: settings, folders, engine, model, memory."""

import argparse
import sys
from collections.abc import Callable
from functools import partial

from lingbi import planner
from lingbi.accounts.key_file import check_keys
from lingbi.accounts.opening import judge_accounts
from lingbi.errors import LingbiError
from lingbi.launch.entrypoint import ALONE, check_readable, check_writable
from lingbi.launch.health import find_fault
from lingbi.launch.plan import decide
from lingbi.model.gpus import choose_engine
from lingbi.model.resources import Resources, find_resources, unoccupied
from lingbi.placement.seats import Placement
from lingbi.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all checks pass, 2 at least one fails."""
    parser = argparse.ArgumentParser(prog="doctor", description=__doc__)
    parser.add_argument(
        "--replacing",
        action="store_true",
        help="check a server that replaces the running one: all memory of the machine counts as free",
    )
    options = parser.parse_args(arguments)
    here = find_resources()
    checks: dict[str, Callable[[], str]] = {
        "settings": settings,
        "folders": partial(folders, here),
        "keys": keys,
        "accounts": accounts,
        "engine": partial(engine, here),
        "start": partial(replacement, unoccupied(here)) if options.replacing else partial(start, here),
    }
    return 0 if all([run(name, check) for name, check in checks.items()]) else 2


def run(name: str, check: Callable[[], str]) -> bool:
    """Run a check and print its result."""
    try:
        print(f"ok    {name:<10} {check()}")
        return True
    except LingbiError as error:
        print(f"FAIL  {name:<10} {error}")
        return False


def settings() -> str:
    changed = load_settings().model_dump(exclude_defaults=True)
    return ", ".join(f"LINGBI_{name.upper()}={value}" for name, value in changed.items()) or "all defaults"


def folders(here: Resources) -> str:
    loaded = load_settings()
    check_writable("LINGBI_STATE_DIR", loaded.state_dir)
    check_readable("LINGBI_MODELS_DIR", loaded.models_dir)
    if any(found.is_to_come for found in planner.find_weights(loaded, here.gpus)):
        check_writable("LINGBI_MODELS_DIR", loaded.models_dir)
    return f"{loaded.state_dir}, {loaded.models_dir}"


def keys() -> str:
    loaded = load_settings()
    names = check_keys(loaded.hashed_key_file(), loaded.key_file())
    return ", ".join(names) or "none yet; the start makes one"


def accounts() -> str:
    return judge_accounts(load_settings())


def engine(here: Resources) -> str:
    choice = choose_engine(load_settings().engine, here.gpus)
    return f"{choice.engine}: {choice.reason}; {here.host_mib} MiB of host memory available"


def start(here: Resources) -> str:
    if find_fault(load_settings().port) is None:
        return "the server of this container is ready"
    plan = decide(load_settings(), ALONE, here)
    return f"{plan.placement} from port {plan.settings.port}: {reasons(plan.placement)}"


def replacement(whole: Resources) -> str:
    """What fits on this machine if nothing else runs there; ports are not checked."""
    placement = planner.plan(load_settings(), whole)
    return f"{placement}, in place of the one that runs: {reasons(placement)}"


def reasons(placement: Placement) -> str:
    """How each model was chosen, and where several are, each worker's place and memory."""
    found = [seat.found.reason for seat in placement.models]
    if placement.is_of_several:
        found += [f"worker {worker}: {seat.place}, {seat.fit}" for worker, seat in enumerate(placement.seats)]
    return "; ".join(found)


if __name__ == "__main__":
    sys.exit(main())
