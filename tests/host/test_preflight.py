"""What is missing on a machine is said in one sentence with a remedy, before anything is changed."""

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from host import preflight
from host.errors import Refusal
from host.machine import NEWEST_CAPABILITY, OLDEST_CAPABILITY, Machine, has_nvidia, look, numbers
from lingbi.model import gpus
from tests.compose.conftest import copy_repository, first_env
from tests.conftest import free_port

SLICES = [
    "GPU 0: NVIDIA A100 (UUID: GPU-aaaa)",
    "MIG 3g.20gb     Device  0: (UUID: MIG-bbbb)",
    "GPU 1: NVIDIA A100 (UUID: GPU-cccc)",
]
GOOD = Machine((26, 1, 5), "", (2, 26, 1), True, SLICES, capabilities=((8, 0), (8, 0)))


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


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "GPU 0: NVIDIA A100"),
        ({"LINGBI_GPU_COUNT": "1"}, "GPU 0: NVIDIA A100"),
        ({"LINGBI_GPU_IDS": "1,0"}, "GPU 0: NVIDIA A100"),
        ({"LINGBI_GPU_IDS": "GPU-aaaa"}, "GPU 0: NVIDIA A100"),
        ({"LINGBI_GPU_IDS": "MIG-bbbb"}, "GPU 0: NVIDIA A100"),
        ({"LINGBI_GPU_IDS": "1"}, ""),
        ({"LINGBI_GPU_IDS": "GPU-cccc"}, ""),
    ],
)
@pytest.mark.parametrize("capability", [(6, 1), (10, 0), (12, 0)])
def test_a_card_that_the_server_has_no_code_for(values, named, capability):
    machine = replace(GOOD, capabilities=(capability, (9, 0)))
    if not named:
        preflight.check_capability(values, machine)
        return
    with pytest.raises(Refusal, match=f"{named} .* has compute capability {preflight.told(capability)}, and TurboMind"):
        preflight.check_capability(values, machine)


@pytest.mark.parametrize("capabilities", [((7, 0), (9, 0)), ((7, 5), (8, 9)), (None, None), ()])
def test_cards_that_it_has_code_for_and_those_that_are_not_known(capabilities):
    preflight.check_capability({}, replace(GOOD, capabilities=capabilities))


def test_the_bounds_are_the_servers_own():
    assert (OLDEST_CAPABILITY, NEWEST_CAPABILITY) == (gpus.OLDEST, gpus.NEWEST)


def test_another_folders_stack_is_not_taken_over_unasked(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    for named, folders in (("", [str(second)]), ("lingbi", [str(first)]), ("", [str(tmp_path / "gone")]), ("", [])):
        preflight.check_owner("lingbi", named, folders, second)
    with pytest.raises(Refusal, match=f"the stack `lingbi` of {first} runs here. For a second .* into {second}/.env"):
        preflight.check_owner("lingbi", "", [str(first), str(first)], second)


def test_a_folder_that_cannot_be_written_is_named():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        preflight.check_writable(Path(folder))
        os.seteuid(65534)
        try:
            with pytest.raises(Refusal, match=f"{folder} cannot be written by user 65534, and scripts/up keeps .env"):
                preflight.check_writable(Path(folder))
        finally:
            os.seteuid(0)


def test_no_gpu_at_all():
    with pytest.raises(Refusal, match="no NVIDIA GPU is here"):
        preflight.check_gpus({}, replace(GOOD, gpus=[]), True)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refusal, match="Address already in use; end what uses it, or give --port"):
            preflight.check_port("127.0.0.1", str(taken.getsockname()[1]))


@pytest.mark.parametrize("port", ["x", "0", "70000", "", "-1"])
def test_a_port_that_is_none(port):
    with pytest.raises(Refusal, match=f"^LINGBI_GATEWAY_PORT='{port}': give a whole number from 1 to 65535"):
        preflight.check_port("127.0.0.1", port)


def test_an_address_of_another_machine():
    with pytest.raises(Refusal, match="^cannot publish on 192.0.2.1 port 6006: .*; give an address of this machine"):
        preflight.check_port("192.0.2.1", "6006")


def test_a_port_that_only_root_may_take_is_left_to_docker():
    """Whoever may use Docker need not be root, and Docker takes it for them."""
    os.seteuid(65534)
    try:
        preflight.check_port("127.0.0.1", "443")
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("subnet", ["172.30", "8.8.8", "172.32.1", "10.0.0.0/24", ""])
def test_a_subnet_that_is_none(subnet):
    with pytest.raises(Refusal, match="LINGBI_SUBNET"):
        preflight.check_subnet(subnet)


def test_a_model_folder_that_holds_none(tmp_path):
    with pytest.raises(Refusal, match="has no config.json"):
        preflight.check_folder({"LINGBI_MODEL_FOLDER": str(tmp_path)}, "LINGBI_MODEL_FOLDER", ["config.json"])


def test_a_folder_that_this_user_cannot_enter_is_left_to_the_containers_user():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o700)
        os.seteuid(65534)
        try:
            preflight.check_folder({"LINGBI_TLS_FOLDER": name}, "LINGBI_TLS_FOLDER", ["key.pem"])
        finally:
            os.seteuid(0)
        with pytest.raises(Refusal, match="has no key.pem"):
            preflight.check_folder({"LINGBI_TLS_FOLDER": name}, "LINGBI_TLS_FOLDER", ["key.pem"])


def test_versions_as_engines_write_them():
    assert numbers("26.1.5+dfsg1") == (26, 1, 5) and numbers("v2.26.1-4\n") == (2, 26, 1) and numbers("") is None


def run_up(root, path: str, *arguments) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
    command = [sys.executable, "-m", "host.start.up", *arguments]
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
