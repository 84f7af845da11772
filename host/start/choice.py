"""Decides how scripts/up starts lingbi, and why: in containers if an engine is usable, natively otherwise."""

from __future__ import annotations

import sys

from host.errors import Refusal
from host.inside import is_native_running
from host.machine import look
from host.preflight import check_engine, check_runtime

NATIVE, DOCKER = 1, 0


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 for containers, 1 for native; the reason goes to standard error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    way, reason = choose("--docker" in arguments)
    print(f"way     {'Docker' if way == DOCKER else 'native'}: {reason}", file=sys.stderr)
    return way


def choose(is_asked_for: bool) -> tuple[int, str]:
    """The way and its reason."""
    if is_asked_for:
        return DOCKER, "asked for by --docker"
    if is_native_running():
        return NATIVE, "it runs natively here already"
    try:
        machine = look()
        check_engine(machine)
        check_runtime(machine)
    except Refusal as refusal:
        return NATIVE, str(refusal)
    return DOCKER, "a usable engine is here (--native for without)"


if __name__ == "__main__":
    sys.exit(main())
