"""A copy of the repository and a machine of fake programs."""

import pytest

from tests.compose.conftest import copy_repository, first_env
from tests.conftest import free_port
from tests.containers.registry import running_registry
from tests.host.machine import FakeMachine


@pytest.fixture
def root(tmp_path):
    return copy_repository(tmp_path / "copy")


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    return FakeMachine(folder)


@pytest.fixture(scope="session")
def registry(docker_engine, tmp_path_factory):
    """A real registry, as HOST:PORT."""
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def env(root):
    """A .env that is right for a machine without GPUs; a function that changes it and returns its text."""

    def write(without: str = "", **values) -> str:
        text = first_env("lingbi-test-fake", "10.213.13", free_port(), **({"LINGBI_VERSION": "1.0.0"} | values))
        lines = [line for line in text.splitlines() if not without or not line.startswith(f"{without}=")]
        (root / ".env").write_text("\n".join(lines) + "\n")
        return (root / ".env").read_text()

    return write
