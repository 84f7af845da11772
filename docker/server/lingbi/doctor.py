"""Check what a server would meet on this machine, without starting it: settings, folders, engine, model, memory."""

import argparse
import sys

from lingbi.container import ALONE, check_readable, check_writable
from lingbi.engines.choice import choose_engine, find_gpus
from lingbi.errors import LingbiError
from lingbi.health import find_fault
from lingbi.memory import available_mib
from lingbi.models import find_model
from lingbi.settings import load_settings
from lingbi.up import decide


def main(arguments=None) -> int:
    """Exit status: 0 all is right, 2 something is not."""
    argparse.ArgumentParser(prog="doctor", description=__doc__).parse_args(arguments)
    return 0 if all([run(name, check) for name, check in CHECKS.items()]) else 2


def run(name: str, check) -> bool:
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


def start() -> str:
    if find_fault(load_settings().port) is None:
        return "the server of this container is ready"
    plan = decide(load_settings(), ALONE)
    return f"{plan.served_name} with {plan.workers} worker(s) from port {plan.settings.port}: {plan.found.reason}"


CHECKS = {"settings": settings, "folders": folders, "engine": engine, "start": start}

if __name__ == "__main__":
    sys.exit(main())
