"""Containers of one image, run as the images are meant to be: read-only, without capabilities."""

import contextlib
import uuid

import pytest

from lingbi.launch.supervision import wait_until
from tests.containers.images import docker, inspect

HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# Lines that look worrying in the server's log and are not, each with its reason.
EXPECTED = {
    "TypedStorage is deprecated": "torch's words about how the published checkpoints are stored",
    "received SIGTERM indicating exit request": "supervisor's level for an ordinary end",
}


@contextlib.contextmanager
def running(image: str, *arguments: str, options=HARDENED):
    """A container in the background, removed with its volumes at the end; yields its name."""
    name = f"lingbi-test-{uuid.uuid4().hex[:8]}"
    flags = [argument for argument in arguments if argument.startswith("--")]
    command = [argument for argument in arguments if not argument.startswith("--")]
    docker("run", "--detach", f"--name={name}", *options, *flags, image, *command)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def health(name: str) -> str:
    return inspect(name)["State"]["Health"]["Status"]


def wait_healthy(name: str, timeout_s: float = 120) -> None:
    """Wait until a container is healthy; fails with its log where it ends or the time is up."""
    wait_until(lambda: health(name) == "healthy" or inspect(name)["State"]["Status"] == "exited", timeout_s)
    assert health(name) == "healthy", logs(name)


def wait_exit(name: str, timeout_s: float = 120) -> int:
    """The exit status of a container that ends by itself."""
    assert wait_until(lambda: inspect(name)["State"]["Status"] == "exited", timeout_s), logs(name)
    return inspect(name)["State"]["ExitCode"]


def logs(name: str) -> str:
    done = docker("logs", name)
    return done.stdout + done.stderr


def python(image: str, code: str) -> str:
    """What Python code prints in a fresh container."""
    return docker("run", "--rm", "--network=none", *HARDENED, "--entrypoint=python3", image, "-c", code).stdout


def shell(image: str, command: str) -> str:
    """What a shell command prints in a fresh container, as root so that it sees everything."""
    return docker("run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", image, "-c", command).stdout


@pytest.fixture(scope="module")
def server(server_image):
    """A server with the demo model, not read-only, so that what it writes can be seen."""
    with running(server_image, options=HARDENED[1:]) as name:
        wait_healthy(name)
        yield name
