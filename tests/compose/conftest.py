"""The whole stack, brought up by scripts/up from a copy of the repository, with a project, network and ports of its own."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port
from tests.containers import images
from tests.containers.images import docker
from tests.containers.subnets import free_subnet
from tests.images.conftest import logs
from tests.weights.conftest import MODEL, small_hub

SERVICES = ("weights", "server", "ui", "gateway")
COPIED = ("docker", "host", "scripts", "settings", "docs", "monitoring")
# The hub of the tests listens on this machine's own loopback.
AT_THE_HUB = """\
services:
  weights:
    network_mode: host
    networks: !reset []
"""


@dataclass
class Stack:
    """A copy of the repository with its stack."""

    root: Path
    project: str
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @functools.cached_property
    def key(self) -> str:
        """The key that the stack made for its operator."""
        return self.compose("exec", "-T", "server", "lingbi", "key", "show").stdout.strip()

    def up(self, *arguments, **environment) -> subprocess.CompletedProcess:
        """scripts/up's own program for containers."""
        command = [sys.executable, "-m", "host.start.up", "--json", *map(str, arguments)]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
        return subprocess.run(
            command, cwd=self.root, env=inherited | environment, capture_output=True, text=True, timeout=400
        )

    def compose(self, *arguments, check: bool = True) -> subprocess.CompletedProcess:
        return docker("compose", *arguments, check=check, cwd=self.root, timeout=400)

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def script(self, name: str, *arguments) -> subprocess.CompletedProcess:
        """One of scripts/, from another folder."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
        command = [self.root / "scripts" / name, *arguments]
        return subprocess.run(command, cwd="/", env=inherited, capture_output=True, text=True, timeout=300)


def copy_repository(folder: Path) -> Path:
    """What a machine needs to run the stack, and nothing that this working copy has beside it."""
    for name in COPIED:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("compose*.yaml"), ROOT / "VERSION"):
        shutil.copy(file, folder)
    return folder


def first_env(project: str, subnet: str, port: int, **values) -> str:
    """A .env for the tests' images."""
    given = {
        "COMPOSE_PROJECT_NAME": project,
        "COMPOSE_FILE": "compose.yaml:compose.cpu.yaml",
        "LINGBI_VERSION": images.VERSION,
        "LINGBI_IMAGE_PREFIX": images.PREFIX,
        "LINGBI_PUBLISH_ADDRESS": "127.0.0.1",
        "LINGBI_GATEWAY_PORT": port,
        "LINGBI_GATEWAY_SERVERS": f"{subnet}.200:23333",
        "LINGBI_GPU_COUNT": "all",
        "LINGBI_SERVER_MEMORY": "4g",
        "LINGBI_STOP_GRACE": "90s",
        "LINGBI_SUBNET": subnet,
    }
    return "".join(f"{name}={value}\n" for name, value in (given | values).items())


@pytest.fixture(scope="session")
def all_images(server_image, ui_image, gateway_image):
    return server_image, ui_image, gateway_image


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@contextlib.contextmanager
def new_stack(root: Path, scheme: str = "http", **values):
    """A Stack with its .env, not started; ended with its volumes."""
    project, subnet, port = f"lingbi-test-{uuid.uuid4().hex[:6]}", free_subnet(), free_port()
    (root / ".env").write_text(first_env(project, subnet, port, **values))
    stack = Stack(root, project, port, scheme)
    try:
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", check=False)


@pytest.fixture(scope="module")
def stack(all_images, hub, tmp_path_factory):
    """The stack with a model from the local hub, on the CPU engine; `first_logs` are those of its first start."""
    root = copy_repository(tmp_path_factory.mktemp("stack"))
    (root / "compose.hub.yaml").write_text(AT_THE_HUB)
    values = {"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.hub.yaml"}
    values |= {"LINGBI_HUB_ENDPOINT": hub.url, "LINGBI_MODEL": MODEL}
    values["LINGBI_GATEWAY_SERVERS"] = ""  # as scripts/up writes it: the server lists its workers itself
    with new_stack(root, **values) as stack:
        done = stack.up()
        assert done.returncode == 0, done.stderr
        stack.first_logs = {service: logs(stack.container(service)) for service in SERVICES}
        yield stack
