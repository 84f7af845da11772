"""The lab that all tests of the playbooks share, and Ansible itself."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import debian
from tests.ansible.lab import images
from tests.ansible.lab.lab import ROOT, Lab

VERSIONS = ("1.0.0", "1.1.0")
FAULTS = ("crashing", "silent", "wrong")
at_the_end = contextlib.ExitStack()


def faulty(fault: str) -> str:
    """The version that has a fault."""
    return f"{VERSIONS[1]}-{fault}"


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem):
    """The lab ends with the last test of this folder: the tests that follow have its memory and disk."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        at_the_end.close()


@pytest.fixture(scope="session")
def controller():
    """Ansible and its linter, and the page's environment, installed as their locks say."""
    command = (
        f"source {ROOT}/scripts/environment && install_front && "
        "install_controller $root/.venv-lab-test $root/tests/ansible/requirements.lock"
    )
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    debian.ensure("openssh-client", has=lambda: shutil.which("ssh"))
    return ROOT / ".venv-lab-test/bin"


@pytest.fixture(scope="session")
def bare_lab(controller, docker_engine, tmp_path_factory):
    """Three bare hosts and a registry with two right versions and three that are not."""
    lab = Lab(tmp_path_factory.mktemp("lab"), f"lingbi-test-lab-{os.getpid()}", controller)
    at_the_end.callback(images.remove_product, images.PREFIX)
    at_the_end.callback(lab.stop)
    try:
        lab.start()
        for version in VERSIONS:
            images.build_product(images.PREFIX, version)
            lab.push(version, images.PREFIX)
        images.build_exporter(images.PREFIX)
        lab.publish("nginx-exporter", "lab", f"{images.PREFIX}nginx-exporter:lab")
        for fault in FAULTS:
            images.build_faulty(images.PREFIX, VERSIONS[0], fault)
            lab.publish("server", faulty(fault), f"{images.PREFIX}server:{fault}")
            for name in ("ui", "gateway"):
                lab.publish(name, faulty(fault), f"{images.PREFIX}{name}:{VERSIONS[0]}")
        yield lab
    finally:
        at_the_end.close()


@pytest.fixture(scope="session")
def lab(bare_lab):
    """The lab with version 1.0.0 running, brought up by site.yml."""
    bare_lab.brought_up = bare_lab.play("site", bare_lab.inventory(lingbi_version=VERSIONS[0]))
    assert bare_lab.brought_up.status == 0, bare_lab.brought_up.output
    return bare_lab
