"""Subnets for the tests' networks."""

import contextlib
import os
import socket

# Each process of a run of the tests has its own: what one has chosen, another does not see before the network is made.
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_unused = (f"10.213.{number}" for number in range(20 + PROCESS, 240, PROCESSES))


def free_subnet() -> str:
    """The first three numbers of a /24 that nobody was given before; a bridge that another run left may hold some."""
    return next(subnet for subnet in _unused if not is_held(subnet))


def is_held(subnet: str) -> bool:
    """Whether this machine has the subnet's first address, as it does when a bridge of Docker's has the subnet."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((f"{subnet}.1", 0))
        return True
    return False
