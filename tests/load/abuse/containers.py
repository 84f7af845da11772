"""A stack in containers, with the memory limits of compose.yaml: what is seen of it, and one of the run's own."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.compose.conftest import Stack as Project
from tests.compose.conftest import copy_repository, new_stack
from tests.containers import engine, images
from tests.containers.images import docker
from tests.load.abuse.processes import Processes

SERVICES = ("server", "ui", "gateway")
VOLUMES = ("/var/lib/lingbi-ui", "/var/lib/lingbi-gateway")  # what is kept of requests


class Containers:
    """The containers of a Compose project on this machine."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.pids: list[int] = []

    def first_processes(self) -> list[int]:
        """Of each container that runs; Docker is asked only where one has ended, so that a restart is seen."""
        if not self.pids or not all(map(psutil.pid_exists, self.pids)):
            self.pids = [item["State"]["Pid"] for item in self.inspected() if item["State"]["Running"]]
        return self.pids

    def folders(self) -> list[Path]:
        """The volumes in which page and gateway keep files of requests."""
        mounts = [mount for item in self.inspected() for mount in item["Mounts"]]
        return sorted({Path(mount["Source"]) for mount in mounts if mount["Destination"] in VOLUMES})

    def inspected(self) -> list[dict]:
        label = "com.docker.compose"
        ids = docker("ps", "--quiet", f"--filter=label={label}.project={self.project}").stdout.split()
        found = json.loads(docker("inspect", *ids).stdout) if ids else []
        return [item for item in found if item["Config"]["Labels"][f"{label}.service"] in SERVICES]

    def processes(self) -> Processes:
        folders = self.folders()
        assert folders, f"the project {self.project} has no containers here; `docker compose ls` names those that run"
        return Processes(self.first_processes, folders)


@contextlib.contextmanager
def running_project(count: int) -> Iterator[tuple[Project, Path]]:
    """A project of its own with the demo model, which trusts this machine to tell clients' addresses, and a file with so
    many keys and one more; its images are built first, and the containers are removed at the end."""
    engine.ensure()
    for name in images.NAMES:
        images.build(name)
    with tempfile.TemporaryDirectory() as folder, new_stack(copy_repository(Path(folder))) as project:
        trust_this_machine(project.root / ".env")
        done = project.up()
        assert done.returncode == 0, done.stderr
        yield project, keys_of(project, count + 1)


def trust_this_machine(env_file: Path) -> None:
    """Docker's own proxy passes on what comes to a published port, from the address of its bridge."""
    values = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
    with env_file.open("a") as stream:
        stream.write(f"LINGBI_GATEWAY_TRUSTED_PROXIES={values['LINGBI_SUBNET']}.64/26\n")


def url_of(project: Project) -> str:
    """The gateway at its own address, to which the kernel passes what other machines send to a published port.

    Through 127.0.0.1 everything would go by Docker's userland proxy, which ends for good under many connections where the
    engine may open few files: that is Docker's bound, not lingbi's (docs/gateway.md).
    """
    [found] = json.loads(docker("inspect", project.container("gateway")).stdout)
    return f"http://{found['NetworkSettings']['Networks'][f'{project.project}_edge']['IPAddress']}:{project.port}"


def keys_of(project: Project, count: int) -> Path:
    """A file with new keys, one a line."""
    file = project.root / "abuse-keys"
    add = ("exec", "-T", "server", "lingbi", "key", "add")
    made = [project.compose(*add, f"abuse-{number}").stdout.strip() for number in range(count)]
    file.write_text("\n".join(made) + "\n")
    return file
