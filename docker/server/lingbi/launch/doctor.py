"""Check what a server would meet on this machine, without starting it: settings, folders, engine, model, memory."""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import psutil

from lingbi.errors import LingbiError
from lingbi.launch.entrypoint import ALONE, check_readable, check_writable
from lingbi.launch.health import find_fault
from lingbi.launch.plan import count_workers, decide, facts_of
from lingbi.model.gpus import choose_engine, emptied, find_gpus
from lingbi.model.host_memory import MIB, available_mib, check_memory
from lingbi.model.resolve import choose_model, find_model
from lingbi.settings import load_settings
from lingbi.weights.start import check_may_fetch

MARGIN_MIB = 64  # between two looks at what is free


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all is right, 2 something is not."""
    parser = argparse.ArgumentParser(prog="doctor", description=__doc__)
    parser.add_argument(
        "--replacing",
        action="store_true",
        help="judge a server that takes the place of the one that runs: all memory of the machine counts as free",
    )
    options = parser.parse_args(arguments)
    checks = CHECKS | ({"start": partial(start, is_replacing=True)} if options.replacing else {})
    return 0 if all([run(name, check) for name, check in checks.items()]) else 2


def run(name: str, check: Callable[[], str]) -> bool:
    """Make a check and say what came of it."""
    try:
        print(f"ok    {name:<10} {check()}")
        return True
    except LingbiError as error:
        print(f"FAIL  {name:<10} {error}")
        return False


def settings() -> str:
    changed = load_settings().model_dump(exclude_defaults=True)
    return ", ".join(f"LINGBI_{name.upper()}={value}" for name, value in changed.items()) or "all as they come"


def folders() -> str:
    loaded = load_settings()
    check_writable("LINGBI_STATE_DIR", loaded.state_dir)
    check_readable("LINGBI_MODELS_DIR", loaded.models_dir)
    if find_model(loaded.model, loaded.models_dir).is_to_come:
        check_writable("LINGBI_MODELS_DIR", loaded.models_dir)
    return f"{loaded.state_dir}, {loaded.models_dir}"


def engine() -> str:
    choice = choose_engine(load_settings().engine, find_gpus())
    return f"{choice.engine}: {choice.reason}; {available_mib()} MiB of host memory available"


def start(is_replacing: bool = False) -> str:
    if is_replacing:
        return replacement()
    if find_fault(load_settings().port) is None:
        return "the server of this container is ready"
    plan = decide(load_settings(), ALONE)
    return f"{plan.served_name} with {plan.workers} worker(s) from port {plan.settings.port}: {plan.found.reason}"


def replacement() -> str:
    """What fits this machine with nothing else on it; ports are not looked at."""
    settings, cards = load_settings(), emptied(find_gpus())
    choice = choose_engine(settings.engine, cards)
    found = choose_model(settings, choice.engine, cards, settings.workers or len(cards))
    check_may_fetch(found, settings)
    model = facts_of(found)
    workers = count_workers(settings, choice.engine, cards)
    if model:
        check_memory(model, choice.engine, cards, workers, host_mib(), settings)
    return f"{found.served_name} with {workers} worker(s), in place of the one that runs: {found.reason}"


def host_mib() -> int:
    """The machine's memory, or this container's share of it."""
    is_limited = available_mib() < psutil.virtual_memory().available // MIB - MARGIN_MIB
    return available_mib() if is_limited else int(psutil.virtual_memory().total) // MIB


CHECKS: dict[str, Callable[[], str]] = {"settings": settings, "folders": folders, "engine": engine, "start": start}

if __name__ == "__main__":
    sys.exit(main())
