"""Debian's own Prometheus and exporter, which the tests of monitoring/ run."""

import shutil

import pytest

from tests import debian

PROGRAMS = ("prometheus", "promtool", "prometheus-nginx-exporter")


@pytest.fixture(scope="session")
def promtool():
    """The command promtool; prometheus and prometheus-nginx-exporter are there too. Installs what is missing."""
    debian.ensure("prometheus", "prometheus-nginx-exporter", has=lambda: all(map(shutil.which, PROGRAMS)))
    return "promtool"
