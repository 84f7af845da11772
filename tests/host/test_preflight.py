"""What is missing on a machine is said in one sentence with a remedy, before anything is changed."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from host import preflight
from host.errors import Refusal
from host.machine import Machine, has_nvidia, look, numbers
from tests.compose.conftest import copy_repository, first_env
from tests.conftest import free_port

SLICES = [
    "GPU 0: NVIDIA A100 (UUID: GPU-aaaa)",
    "MIG 3g.20gb     Device  0: (UUID: MIG-bbbb)",
    "GPU 1: NVIDIA A100 (UUID: GPU-cccc)",
]
GOOD = Machine((26, 1, 5), "", (2, 26, 1), True, SLICES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": None, "engine_fault": "Cannot connect"}, "no Docker engine answers here: Cannot connect; install"),
        ({"engine": (20, 10, 24)}, "the Docker engine is 20.10.24; 25.0 or later is needed"),
        ({"compose": None}, "`docker compose` is not here; install the Compose plugin"),
        ({"compose": (2, 3)}, "Docker Compose is 2.3; 2.24 or later is needed"),
    ],
)
def test_an_engine_that_cannot_be_used(change, said):
    with pytest.raises(Refusal) as refusal:
        preflight.check_engine(replace(GOOD, **change))
    assert said in str(refusal.value)
    preflight.check_engine(GOOD)


def test_gpus_without_nvidias_runtime():
    with pytest.raises(Refusal, match="has no NVIDIA runtime; install the NVIDIA Container Toolkit"):
        preflight.check_runtime(replace(GOOD, has_nvidia_runtime=False))
    preflight.check_runtime(GOOD)
    assert has_nvidia({"Runtimes": {"nvidia": {}}}) and not has_nvidia({"Runtimes": {"runc": {}}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"LINGBI_GPU_IDS": "0,7"}, "there is no GPU 7; here are: GPU 0: NVIDIA A100"),
        ({"LINGBI_GPU_IDS": "MIG-zzzz"}, "there is no GPU MIG-zzzz"),
        ({"LINGBI_GPU_COUNT": "3"}, "give `all` or a number from 1 to 2"),
        ({"LINGBI_GPU_COUNT": "some"}, "give `all` or a number"),
    ],
)
def test_gpus_that_are_not_here(values, said):
    with pytest.raises(Refusal) as refusal:
        preflight.check_gpus(values, GOOD, True)
    assert said in str(refusal.value)


@pytest.mark.parametrize("ids", ["0,1", "GPU-cccc", "MIG-bbbb", ""])
def test_gpus_by_index_uuid_and_slice(ids):
    preflight.check_gpus({"LINGBI_GPU_IDS": ids}, GOOD, True)


def test_no_gpu_at_all():
    with pytest.raises(Refusal, match="no NVIDIA GPU is here"):
        preflight.check_gpus({}, replace(GOOD, gpus=[]), True)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refusal, match="Address already in use; end what uses it, or give --port"):
            preflight.check_port("127.0.0.1", str(taken.getsockname()[1]))


@pytest.mark.parametrize("subnet", ["172.30", "8.8.8", "172.32.1", "10.0.0.0/24", ""])
def test_a_subnet_that_is_none(subnet):
    with pytest.raises(Refusal, match="LINGBI_SUBNET"):
        preflight.check_subnet(subnet)


def test_a_model_folder_that_holds_none(tmp_path):
    with pytest.raises(Refusal, match="has no config.json"):
        preflight.check_folder({"LINGBI_MODEL_FOLDER": str(tmp_path)}, "LINGBI_MODEL_FOLDER", ["config.json"])


def test_versions_as_engines_write_them():
    assert numbers("26.1.5+dfsg1") == (26, 1, 5) and numbers("v2.26.1-4\n") == (2, 26, 1) and numbers("") is None


def run_up(root, path: str, *arguments) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
    command = [sys.executable, "-m", "host.up", *arguments]
    return subprocess.run(command, cwd=root, env=environment | {"PATH": path}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        (None, "there is no `docker` command here"),
        ('echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock" >&2; exit 1', "Cannot connect"),
    ],
)
def test_without_an_engine_nothing_is_written(tmp_path, docker, said):
    root = copy_repository(tmp_path / "copy")
    path = tmp_path / "bin"
    path.mkdir()
    if docker:
        (path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (path / "docker").chmod(0o755)
    done = run_up(root, f"{path}:/bin" if docker else str(path))
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (root / ".env").exists() and not (root / "secrets").exists()


def test_a_typo_in_env_stops_before_anything_is_changed(docker_engine, tmp_path):
    root = copy_repository(tmp_path / "copy")
    text = first_env("lingbi-test-typo", "10.213.11", free_port(), LINGBI_MODLE="demo")
    (root / ".env").write_text(text)
    done = run_up(root, os.environ["PATH"], "--model", "demo")
    assert done.returncode == 2 and "LINGBI_MODLE='demo' in .env" in done.stderr, done.stderr
    assert (root / ".env").read_text() == text and not (root / "secrets").exists()


def test_this_machine_can_be_looked_at(docker_engine):
    machine = look()
    assert machine.engine >= (25,) and machine.compose >= (2, 24)
