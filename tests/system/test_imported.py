"""A worker that serves imports nothing but what its lock names: none of what only lmdeploy's own commands need."""

import re
import subprocess
import sys
from importlib.metadata import distributions

import pytest

from lingbi.launch.supervision import wait_until
from tests.client import CHAT, SCENES, fault, http, question
from tests.conftest import ROOT, running_worker

SERVER = ROOT / "docker/server"


def names(lock) -> set:
    """The packages that a lock names."""
    return set(re.findall(r"^([a-z0-9-]+)==", lock.read_text(), re.M))


SERVED = names(SERVER / "requirements.lock")
ONLY_COMMANDS = names(SERVER / "lmdeploy-requirements.lock") - SERVED
ONLY_TESTS = names(ROOT / "tests/requirements.lock") - SERVED  # Pillow and httpcore take some of these where they are


def owners() -> dict:
    """{module: the package that installed it here, by the name that locks have}."""
    found = {}
    for item in distributions():
        package = re.sub("[._]", "-", item.metadata["Name"].lower())  # parses the metadata each time that it is read
        found |= {file.parts[0].removesuffix(".py"): package for file in item.files or ()}
    return found


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> set:
    """What a worker has imported that has answered a question about a picture: packages' names as locks have them."""
    folder = tmp_path_factory.mktemp("worker")
    command = (sys.executable, "-m", "tests.system.telling_worker", str(folder / "modules"))
    with running_worker(folder / "state", *command, PYTHONPATH="docker/server:.") as server, http(server) as client:
        assert fault(SCENES[0], client.post(CHAT, json=question(server, SCENES[0]))) is None
        server["process"].terminate()
        assert wait_until(lambda: server["process"].poll() is not None, 30)
    owner = owners()
    return {owner[module] for module in (folder / "modules").read_text().split() if module in owner}


def test_it_imports_what_it_serves_with(imported):
    assert {"torch", "transformers", "lmdeploy", "starlette", "uvicorn", "pillow", "h11"} <= imported


def test_it_imports_nothing_that_its_lock_does_not_name(imported):
    assert imported - ONLY_TESTS <= SERVED


def test_what_only_the_commands_need_is_neither_installed_with_it_nor_imported(imported):
    assert {"gradio", "gradio-client", "datasets", "pandas", "aiohttp"} <= ONLY_COMMANDS
    assert not ONLY_COMMANDS & imported - ONLY_TESTS
    assert "lmdeploy-requirements" not in (SERVER / "Dockerfile").read_text()


@pytest.mark.parametrize("command", ["lingbi.cli.fetch", "lingbi.cli.batch"])
def test_commands_of_a_machine_that_serves_nothing_import_what_their_own_lock_names(command):
    told = f"import sys, {command}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    owner = owners()
    found = {owner[module] for module in done.stdout.split() if module in owner}
    assert "pydantic-settings" in found and found <= names(SERVER / "fetch-requirements.lock")
