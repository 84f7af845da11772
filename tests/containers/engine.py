"""A Docker engine with BuildKit and Compose v2, from Debian's packages, where none answers.

Bookworm's own engine is too old for heredocs and start intervals, so five packages come from trixie,
and nothing else does. `python -m tests.containers.engine` installs and starts it by hand.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil

from lingbi.launch.supervision import wait_until
from tests import debian

PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd")
SUITE = "trixie"
PREFERENCES = f"""\
Package: *
Pin: release n={SUITE}
Pin-Priority: -1

Package: {" ".join(PACKAGES)}
Pin: release n={SUITE}
Pin-Priority: 990
"""
SOURCES = """\
Types: deb
URIs: {mirror}
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
MIRROR = re.compile(r"^(?:URIs:|deb(?: \[.*\])?)\s+(\S+/debian)/?(?:\s|$)", re.M)
# The containerd image store exports the 5 GB environment in minutes, overlay2 in seconds.
DAEMON = {"features": {"containerd-snapshotter": False}, "mtu": 1400}
LOCK = Path("/var/lock/lingbi-engine.lock")
READY_S, END_S = 60, 30


def answers() -> bool:
    """Whether an engine answers here."""
    done = subprocess.run(["docker", "info"], capture_output=True) if shutil.which("docker") else None
    return done is not None and done.returncode == 0


def ensure():
    """Have an engine that answers; the process started for it, or None where one ran. One caller at a time."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers():
            return None
        if not shutil.which("dockerd"):
            _install()
        return _start()


def _install() -> None:
    Path("/etc/apt/preferences.d/lingbi-engine").write_text(PREFERENCES)
    Path("/etc/apt/sources.list.d/lingbi-engine.sources").write_text(sources())
    debian.apt_get("update")
    debian.apt_get("install", "--no-install-recommends", "--yes", *PACKAGES, "iptables")


def sources() -> str:
    """Trixie as an apt source, from the mirror that this machine has its packages from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").iterdir())]
    found = MIRROR.findall("\n".join(file.read_text() for file in files if file.is_file()))
    if not found:
        raise RuntimeError(f"none of {', '.join(map(str, files))} names a Debian mirror (an address ending in /debian)")
    return SOURCES.format(mirror=found[0])


def _start() -> subprocess.Popen:
    config, log = Path("/etc/docker/daemon.json"), Path("/var/log/dockerd.log")
    config.parent.mkdir(exist_ok=True)
    if not config.exists():
        config.write_text(json.dumps(DAEMON))
    process = subprocess.Popen(["dockerd"], stdout=log.open("a"), stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + READY_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"dockerd did not start; the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
    return process


def stop(process: int) -> None:
    """End the engine that `ensure` started, without its builds' cache; it may be another process's child."""
    subprocess.run(["docker", "builder", "prune", "--all", "--force"], capture_output=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    assert wait_until(lambda: _is_gone(process), END_S), f"dockerd, process {process}, goes on"


def _is_gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


if __name__ == "__main__":
    started = ensure()
    print(f"started as process {started.pid}" if started else "an engine answers already")
