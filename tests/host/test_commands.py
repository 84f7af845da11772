"""scripts/down, key, smoke and login of a machine in containers: also where these do not run, and without installing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose.conftest import first_env
from tests.host.machine import FakeMachine

TOOLS = ("bash", "dirname", "sed", "awk", "df", "cut", "env", "id")


@pytest.fixture
def script(machine: FakeMachine, root):
    """A function that runs a script of a stack that scripts/up made."""
    for tool in TOOLS:
        (machine.folder / tool).symlink_to(shutil.which(tool))
    (machine.folder / "python3").symlink_to(Path(sys.executable).resolve())
    (root / ".env").write_text(first_env("lingbi-test-fake", "10.213.13", 6006))

    def run(name: str, *arguments):
        command = ["bash", root / "scripts" / name, *arguments]
        environment = {"PATH": str(machine.folder), "HOME": str(root)}
        return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)

    return run


def compose(root, words: str) -> str:
    return f"compose --project-directory {root} {words}"


def test_down_ends_what_every_profile_has_whether_it_runs_or_not(machine, root, script):
    machine.have_docker()
    done = script("down", "--volumes")
    assert done.returncode == 0 and not (root / ".venv").exists(), done.stderr
    assert machine.calls()[-1] == compose(root, "--profile * down --volumes")


def test_a_settings_file_says_all_so_the_machine_is_not_looked_at(machine, root, script):
    machine.have_docker()
    machine.have_gpus("GPU 0: NVIDIA L4 (UUID: GPU-a)")
    (machine.folder / "touch").symlink_to(shutil.which("touch"))
    machine.have("nvidia-smi", f"#!/bin/sh\ntouch {machine.folder}/looked\n")
    code = "from host.commands import values; print(values()['LINGBI_IMAGE_PREFIX'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env={"PATH": str(machine.folder)}, capture_output=True, text=True)
    assert done.stdout == "lingbi-test/\n" and not (machine.folder / "looked").exists(), done.stderr
    (root / ".env").unlink()
    done = subprocess.run(command, cwd=root, env={"PATH": str(machine.folder)}, capture_output=True, text=True)
    assert done.stdout == "lingbi/\n" and (machine.folder / "looked").exists(), done.stderr


def test_a_key_is_made_beside_a_stopped_server(machine, root, script):
    machine.have_docker()
    assert script("key", "add", "alice").returncode == 0 and not (root / ".venv").exists()
    assert machine.calls()[-1] == compose(root, "run --rm --no-deps --no-TTY weights key add alice")


def test_smoke_of_a_stopped_stack_says_so(machine, root, script):
    machine.have_docker()
    done = script("smoke")
    assert (done.returncode, done.stderr) == (3, "error: the containers do not run; scripts/up starts them\n")
    assert not (root / ".venv").exists()


def test_smoke_beside_a_stopped_gateway_names_it(machine, root, script):
    machine.have_docker(running='case "$*" in *gateway) ;; *) echo a-container ;; esac')
    done = script("smoke")
    assert (done.returncode, done.stderr) == (
        3,
        "error: these containers do not run: gateway; scripts/up starts them\n",
    )


def test_a_login_is_written_where_the_page_looks_and_its_override_chosen(machine, root, script):
    machine.have_docker()
    (root / "secrets").mkdir(mode=0o755)
    (root / "secrets/logins").write_text("former scrypt:…\n")  # as a file, as it was
    done = script("login", "add", "alice")
    assert done.returncode == 0 and "scripts/up has the page ask for logins" in done.stderr, done.stderr
    assert (root / "secrets/logins/logins").read_text() == "former scrypt:…\n"
    assert (root / "secrets/logins/logins").stat().st_mode & 0o777 == 0o644
    assert (root / "secrets").stat().st_mode & 0o777 == 0o700
    assert "COMPOSE_FILE=compose.yaml:compose.cpu.yaml:compose.logins.yaml\n" in (root / ".env").read_text()
    said = machine.calls()[-1]
    assert f"--volume={root}/secrets/logins:/logins " in said and said.endswith("-m lingbi_ui.logins add alice")
