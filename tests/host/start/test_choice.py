"""scripts/up says which way it goes, and why."""

import os
import subprocess
import sys

import pytest

from host.start import up
from lingbi.launch import up as native
from tests.conftest import ROOT

VERSIONS = """#!/bin/sh
case "$*" in
    info*) echo '{"ServerVersion": "%s"}' ;;
    compose*) echo 2.30.1 ;;
esac
"""


def choose(path, *arguments):
    environment = os.environ | {"PATH": str(path)}
    command = [sys.executable, "-m", "host.start.choice", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [("26.1.5", 0, "Docker: a usable engine is here"), ("20.10.24", 1, "native: the Docker engine is 20.10.24; 25.0")],
)
def test_by_the_engine(tmp_path, version, status, said):
    (tmp_path / "docker").write_text(VERSIONS % version)
    (tmp_path / "docker").chmod(0o755)
    done = choose(tmp_path)
    assert done.returncode == status and said in done.stderr, done.stderr


def test_without_docker(tmp_path):
    done = choose(tmp_path)
    assert done.returncode == 1 and "native: no Docker engine answers here" in done.stderr


def test_gpus_that_the_engine_cannot_hand_on(tmp_path):
    (tmp_path / "docker").write_text(VERSIONS % "26.1.5")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-a)'\n")
    for name in ("docker", "nvidia-smi"):
        (tmp_path / name).chmod(0o755)
    done = choose(tmp_path)
    assert (
        done.returncode == 1 and "native: 1 GPU(s) are here, and the Docker engine has no NVIDIA runtime" in done.stderr
    )


def test_asked_for(tmp_path):
    done = choose(tmp_path, "--docker")
    assert done.returncode == 0 and "Docker: asked for by --docker" in done.stderr


@pytest.mark.parametrize("module", [up, native])
def test_each_help_names_the_other_way(module, capsys):
    with pytest.raises(SystemExit):
        module.parse(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"scripts/up {'--native' if module is up else '--docker'} --help" in told and "--native" in told
