"""Fixtures for all tests that need a Docker engine; a plugin of tests/conftest.py."""

import functools
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from lingbi.launch.supervision import wait_until
from tests.containers import images, sharing
from tests.containers.bases import PREFIX

BUILDING = FileLock("/var/lock/lingbi-tests-build.lock")
KEEP_IMAGES = bool(os.environ.get("KEEP_IMAGES"))  # for those who run a few tests again and again
GONE_S = 30  # a container that ends is listed until its removal is done
OURS = "lingbi-test"  # what the names of all begin with that tests make on an engine
LEFT = {  # how such things are listed, and how they are removed, in this order
    ("ps", "--all", "--format={{.Names}}"): ("rm", "--force", "--volumes"),
    ("network", "ls", "--format={{.Name}}"): ("network", "rm"),
    ("volume", "ls", "--quiet"): ("volume", "rm"),
}
if not KEEP_IMAGES:
    LEFT["images", "--format={{.Repository}}:{{.Tag}}"] = "rmi", "--force"


@pytest.fixture(scope="session")
def docker_engine(request):
    """An engine that answers, left as it was found: nothing of the tests stays, and what was started for them ends.

    Its value begins the build of the server's image, once, and gives it as a Future. Where a test will want it, it is
    begun here: it takes minutes of two cores, and the tests before those wait a lot.
    """
    try:
        with sharing.shared(look, tidy) as is_ours, ThreadPoolExecutor(1) as ahead:
            begin = functools.cache(lambda: ahead.submit(build_server, downloads_stay=not is_ours))
            if any("server_image" in item.fixturenames for item in request.session.items):
                begin()
            yield begin
    except sharing.InUse as error:
        pytest.fail(str(error))


def build_server(downloads_stay: bool) -> str:
    """Build the server's image; the second process of a run waits for the first, and finds all steps done."""
    with BUILDING:
        return images.build("server", downloads_stay)


def look() -> dict:
    """What is on the engine before the tests, once nothing is left of a run that was killed."""
    clear()
    return {"things": sorted(things()), "replaced": sorted(replaced())}


def clear() -> None:
    """Remove what a run that was killed has left: its containers start with the engine, and its images are of other files."""
    for list_them, remove in LEFT.items():
        if found := {name for name in images.docker(*list_them).stdout.split() if name.startswith(OURS)}:
            images.docker(*remove, *found)


def tidy(before: dict) -> None:
    """Remove what the tests built; fails where they left anything else."""
    if not KEEP_IMAGES:
        images.docker("rmi", "--force", *map(images.tag, images.NAMES), check=False)
        names = [f"--filter=reference={PREFIX}/{pattern}" for pattern in ("*", "*/*")]
        stand_ins = images.docker("images", "--quiet", *names).stdout.split()
        images.docker("rmi", "--force", *stand_ins, *(replaced() - set(before["replaced"])), check=False)
    seen = set(before["things"])
    assert wait_until(lambda: things() <= seen, GONE_S), f"the tests left these behind: {things() - seen}"


def things() -> set:
    """Containers, networks, volumes and images of the tests; of volumes without a name those that nobody uses."""
    found = {name for command in LEFT for name in images.docker(*command).stdout.split()}
    unused = images.docker("volume", "ls", "--quiet", "--filter=dangling=true").stdout.split()
    nameless = {name for name in unused if re.fullmatch("[0-9a-f]{64}", name)}
    if not KEEP_IMAGES:
        nameless |= replaced()
    return {name for name in found if name.startswith(OURS)} | nameless


def replaced() -> set:
    """Images without a name: a later build has it."""
    return set(images.docker("images", "--quiet", "--filter=dangling=true").stdout.split())


@pytest.fixture(scope="session")
def server_image(docker_engine):
    return docker_engine().result()


@pytest.fixture(scope="session")
def ui_image(docker_engine):
    return images.build("ui")


@pytest.fixture(scope="session")
def gateway_image(docker_engine):
    return images.build("gateway")
