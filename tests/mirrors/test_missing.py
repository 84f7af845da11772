"""scripts/up on a system that lacks something: it ends with the one command that brings it, and changes nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PARTS = (
    "scripts",
    "host",
    "settings",
    "docker/uv-requirements.in",
    "docker/uv-requirements.lock",
    "docker/server/requirements.lock",
)
PARTS += ("docker/server/build-requirements.lock", "VERSION")
TOOLS = "awk bash cat cut df dirname env flock id mkdir rm sed sha256sum".split()
NOBODY = 65534
UP = ("scripts/up", "--native", "--model", "demo")


@pytest.fixture
def clone():
    """A clone with nothing installed, where every user may read it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lingbi"
        for part in PARTS:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, root / part)
        os.chmod(folder, 0o755)
        yield root


@pytest.fixture
def run(clone):
    """Run a command of the clone where only some programs are on the PATH; returns the CompletedProcess."""
    programs = clone.parent / "bin"
    programs.mkdir()

    def run(*command: str, python: bool = True, modules: Path | None = None, **options) -> subprocess.CompletedProcess:
        for name in TOOLS:
            (programs / name).symlink_to(shutil.which(name))
        if python:
            (programs / "python3").symlink_to(Path(sys.executable).resolve())
        values = {"PATH": str(programs), "HOME": str(clone.parent)} | ({"PYTHONPATH": str(modules)} if modules else {})
        return subprocess.run(command, cwd=clone, env=values, capture_output=True, text=True, timeout=60, **options)

    return run


@pytest.fixture
def without_venv(tmp_path):
    """A folder of modules that hides ensurepip, as Debian's and Ubuntu's python3 lacks it without python3-venv."""
    (tmp_path / "ensurepip.py").write_text("raise ModuleNotFoundError(\"No module named 'ensurepip'\")\n")
    return tmp_path


@pytest.mark.parametrize("command", [UP, ("scripts/up",)])
def test_without_python(run, clone, command):
    done = run(*command, python=False)
    assert done.returncode == 2 and "python3 is not here" in done.stderr, done.stderr
    assert (
        done.stderr.count("error:") == 1 and "sudo apt-get install python3 python3-venv) and try again" in done.stderr
    )


@pytest.mark.parametrize("command", [UP, ("scripts/up",)])
def test_without_its_module_venv(run, clone, without_venv, command):
    done = run(*command, modules=without_venv)
    assert done.returncode == 2 and "python3's module venv is not here" in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1 and "sudo apt-get install python3-venv) and try again" in done.stderr
    assert not any(clone.glob(".venv*")) and not (clone / ".lingbi/tools/bin").exists()


def test_a_clone_that_cannot_be_written_to(run, clone):
    as_another = {"user": NOBODY} if os.getuid() == 0 else {}
    for folder in (clone, *clone.rglob("*")):
        folder.chmod(0o555 if folder.is_dir() or os.access(folder, os.X_OK) else 0o444)
    try:
        done = run(*UP, **as_another)
    finally:
        clone.chmod(0o755)
        for folder in clone.rglob("*/"):
            folder.chmod(0o755)
    assert done.returncode == 2 and f"cp -r {clone} ~/my-lingbi && ~/my-lingbi/scripts/up" in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1 and not (clone / ".lingbi").exists()
