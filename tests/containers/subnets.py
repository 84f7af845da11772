"""Subnets for the tests' networks."""

import contextlib
import socket

_unused = (f"10.213.{number}" for number in range(20, 240))


def free_subnet() -> str:
    """The first three numbers of a /24 that nobody was given before; a bridge that another run left may hold some."""
    return next(subnet for subnet in _unused if not is_held(subnet))


def is_held(subnet: str) -> bool:
    """Whether this machine has the subnet's first address, as it does when a bridge of Docker's has the subnet."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((f"{subnet}.1", 0))
        return True
    return False
