"""Debian's packages that tests need, installed where they are missing: by one process of a run at a time, as apt wants it."""

import os
import subprocess
from collections.abc import Callable

from filelock import FileLock

one_at_a_time = FileLock("/var/lock/lingbi-tests-apt.lock")
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # nothing is asked, and no service is started


def ensure(*packages: str, has: Callable[[], object]) -> None:
    """Install the packages unless this machine has what is wanted of them. Raises RuntimeError."""
    if has():
        return
    with one_at_a_time:
        if has():  # another process brought it meanwhile
            return
        apt_get("update")
        apt_get("install", "--no-install-recommends", "--yes", *packages)
    if not has():
        raise RuntimeError(f"{', '.join(packages)}: installed, and what is wanted of them is not there")


def apt_get(*arguments: str, **options) -> None:
    """Run apt-get, alone. Raises RuntimeError."""
    with one_at_a_time:
        command = ["apt-get", "-qq", *arguments]
        done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
