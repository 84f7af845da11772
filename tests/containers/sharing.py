"""This machine's one engine, shared by the processes of one run of the tests and by no other run.

Whoever comes first starts it, whoever leaves last ends it, and removes and counts what the tests left.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path

from filelock import FileLock

from tests.containers import engine

USERS = Path("/var/lock/lingbi-tests.lock")  # held by all users together; holds what the first of them saw
DOOR = FileLock("/var/lock/lingbi-tests-door.lock")  # held while one comes or leaves
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"process {os.getpid()}"


class InUse(Exception):
    """Another run of the tests uses the engine."""


@contextlib.contextmanager
def shared(look, tidy):
    """Have an engine that answers; yields whether it was started for this run. Raises InUse.

    look: what is on the engine, as JSON, called by the first; tidy: called by the last, with what was seen then.
    """
    with USERS.open("a+") as users:
        with DOOR:
            came = _come(users, look)
        try:
            yield came["process"] is not None
        finally:
            with DOOR:
                fcntl.flock(users, fcntl.LOCK_UN)
                if _is_free(users):
                    try:
                        tidy(came["seen"])
                    finally:
                        if came["process"]:
                            engine.stop(came["process"])


def _come(users, look) -> dict:
    if _is_free(users):
        started = engine.ensure()
        came = {"run": RUN, "process": started.pid if started else None, "seen": look()}
        users.truncate(0)
        users.write(json.dumps(came))
        users.flush()
    else:
        users.seek(0)
        came = json.load(users)
        if came["run"] != RUN:
            raise InUse("another run of the tests uses this machine's engine; wait for its end")
    fcntl.flock(users, fcntl.LOCK_SH)
    return came


def _is_free(users) -> bool:
    """Whether nobody uses the engine; it is this process's then."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
