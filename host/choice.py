"""Which way scripts/up goes: in containers where an engine is usable, natively where not; and why."""

from __future__ import annotations

import sys

from host.errors import Refusal
from host.machine import look
from host.preflight import check_engine, check_runtime

NATIVE, DOCKER = 1, 0


def main(arguments=None) -> int:
    """Exit status 0 for containers, 1 for native; the reason goes to standard error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--docker" in arguments:
        return DOCKER
    try:
        machine = look()
        check_engine(machine)
        check_runtime(machine)
    except Refusal as refusal:
        print(f"way     native: {refusal}", file=sys.stderr)
        return NATIVE
    print("way     Docker: a usable engine is here (--native for without)", file=sys.stderr)
    return DOCKER


if __name__ == "__main__":
    sys.exit(main())
