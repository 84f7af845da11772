"""Debian's own Prometheus and exporter, which the tests of monitoring/ run."""

import shutil
import subprocess

import pytest

PACKAGES = {"prometheus": ("prometheus", "promtool"), "prometheus-nginx-exporter": ("prometheus-nginx-exporter",)}


@pytest.fixture(scope="session")
def promtool():
    """The command promtool; prometheus and prometheus-nginx-exporter are there too. Installs what is missing."""
    missing = [name for name, programs in PACKAGES.items() if not all(map(shutil.which, programs))]
    if missing:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "RUNLEVEL": "1"}  # no service is started
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        command = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    return "promtool"
