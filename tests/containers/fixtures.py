"""Fixtures for all tests that need a Docker engine; a plugin of tests/conftest.py."""

import fcntl
import functools
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.containers import engine, images
from tests.containers.bases import PREFIX

ALONE = Path("/var/lock/lingbi-tests.lock")
KEEP_IMAGES = bool(os.environ.get("KEEP_IMAGES"))  # for those who run a few tests again and again


@pytest.fixture(scope="session")
def alone_with_the_engine():
    """One process at a time: what one removes at its end, another may be using."""
    with ALONE.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(
                "another process of tests uses this machine's engine; wait for its end, or, if it is of this run, name "
                "docker_engine in the test that asks for it by request.getfixturevalue (see tests/conftest.py)"
            )
        yield


@pytest.fixture(scope="session")
def docker_engine(alone_with_the_engine, request):
    """An engine that answers, left as it was found: nothing of the tests stays, and what was started for them ends.

    Its value begins the build of the server's image, once, and gives it as a Future. Where a test will want it, it is
    begun here: it takes minutes of two cores, and the tests before those wait a lot.
    """
    started = engine.ensure()
    before, replaced_before = things(), replaced()
    with ThreadPoolExecutor(1) as ahead:
        begin = functools.cache(lambda: ahead.submit(images.build, "server", downloads_stay=started is None))
        if any("server_image" in item.fixturenames for item in request.session.items):
            begin()
        yield begin
    _remove("server")
    if not KEEP_IMAGES:
        names = [f"--filter=reference={PREFIX}/{pattern}" for pattern in ("*", "*/*")]
        stand_ins = images.docker("images", "--quiet", *names).stdout.split()
        images.docker("rmi", "--force", *stand_ins, *(replaced() - replaced_before), check=False)
    left = things() - before
    if started:
        images.docker("builder", "prune", "--all", "--force", check=False)
        started.terminate()
        started.wait(30)
    assert left == set(), "the tests left these behind"


def things() -> set:
    """Containers, networks, volumes and images of the tests; of volumes without a name those that nobody uses."""
    lists = [
        ("ps", "--all", "--format={{.Names}}"),
        ("network", "ls", "--format={{.Name}}"),
        ("volume", "ls", "--quiet"),
    ]
    if not KEEP_IMAGES:
        lists.append(("images", "--format={{.Repository}}:{{.Tag}}"))
    found = {name for command in lists for name in images.docker(*command).stdout.split()}
    unused = images.docker("volume", "ls", "--quiet", "--filter=dangling=true").stdout.split()
    nameless = {name for name in unused if re.fullmatch("[0-9a-f]{64}", name)}
    if not KEEP_IMAGES:
        nameless |= replaced()
    return {name for name in found if name.startswith("lingbi-test")} | nameless


def replaced() -> set:
    """Images without a name: a later build has it."""
    return set(images.docker("images", "--quiet", "--filter=dangling=true").stdout.split())


def _image(name: str):
    @pytest.fixture(scope="session", name=f"{name}_image")
    def image(docker_engine):
        yield images.build(name)
        _remove(name)

    return image


def _remove(name: str) -> None:
    if not KEEP_IMAGES:
        images.docker("rmi", "--force", images.tag(name), check=False)


@pytest.fixture(scope="session")
def server_image(docker_engine):
    return docker_engine().result()


ui_image = _image("ui")
gateway_image = _image("gateway")
