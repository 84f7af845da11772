"""A bundle is whole, proves itself, loads, and stops where it is spoiled."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.containers import images
from tests.containers.images import docker


@pytest.fixture
def small_images(docker_engine, tmp_path):
    """Images under the names of ours that are quickly saved: nothing here depends on what is in them."""
    prefix = "lingbi-test-small/"
    (tmp_path / "context").mkdir()
    for name in images.NAMES:
        (tmp_path / "context" / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /{name}\n")
        docker("build", "--quiet", f"--tag={prefix}{name}:1.0.0", tmp_path / "context")
    yield prefix
    docker("rmi", "--force", *(f"{prefix}{name}:1.0.0" for name in images.NAMES), check=False)


def bundle(*arguments):
    command = [sys.executable, "-m", "host.bundle", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_it_loads_elsewhere_and_a_spoiled_one_does_not(small_images, tmp_path):
    weights = tmp_path / "tiny"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    archive = tmp_path / "lingbi-1.0.0.tar"
    done = bundle("--to", archive, "--version", "1.0.0", "--prefix", small_images, "--weights", weights)
    assert done.returncode == 0 and "lingbi-1.0.0/load" in done.stdout, done.stderr
    subprocess.run(["tar", "-xf", archive], cwd=tmp_path, check=True)
    folder = tmp_path / "lingbi-1.0.0"
    for file in (
        "compose.yaml",
        "scripts/up",
        "host/up.py",
        "settings/schema.json",
        "models/tiny/config.json",
    ):
        assert (folder / file).is_file(), file
    assert (folder / "VERSION").read_text() == "1.0.0\n"
    assert (folder / "IMAGE_PREFIX").read_text() == f"{small_images}\n"
    machine = "from host.machine import Machine; m = Machine(None, '', None, False, [])"
    code = f"{machine}; from host import decide, stack; print(stack.image(decide.first_values(m), 'ui'))"
    there = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert there.stdout.strip() == f"{small_images}ui:1.0.0", there.stderr
    docker("rmi", "--force", *(f"{small_images}{name}:1.0.0" for name in images.NAMES))
    loaded = subprocess.run([folder / "load"], capture_output=True, text=True)
    assert loaded.returncode == 0 and "scripts/up --docker --model ./models/tiny" in loaded.stdout, loaded.stderr
    assert docker("image", "inspect", f"{small_images}gateway:1.0.0").returncode == 0
    (folder / "compose.yaml").write_text("spoiled")
    loaded = subprocess.run([folder / "load"], capture_output=True, text=True)
    assert loaded.returncode != 0 and "compose.yaml: FAILED" in loaded.stdout + loaded.stderr


def test_images_that_are_not_here_are_named(docker_engine, tmp_path):
    done = bundle("--to", tmp_path / "x.tar", "--version", "0.0.0", "--prefix", "lingbi-test-none/")
    assert done.returncode == 2 and "lingbi-test-none/server:0.0.0" in done.stderr and not list(tmp_path.iterdir())


def test_a_folder_without_a_model_is_refused(small_images, tmp_path):
    done = bundle("--to", tmp_path / "x.tar", "--version", "1.0.0", "--prefix", small_images, "--weights", tmp_path)
    assert done.returncode == 2 and "there is no config.json in it" in done.stderr
