"""git's hooks, as `scripts/check --install` installs them, refuse a commit that the checks refuse."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


class Checkout:
    """A repository with this one's hooks and tools."""

    def __init__(self, folder: Path):
        self.folder = folder / "checkout"
        self.folder.mkdir()
        self.environment = os.environ | {"PRE_COMMIT_HOME": str(folder / "home")}
        for name in (".pre-commit-config.yaml", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        shutil.copytree(ROOT / "checks", self.folder / "checks", ignore=shutil.ignore_patterns("__pycache__"))
        (self.folder / ".venv-test").symlink_to(Path(sys.executable).parents[1])
        (self.folder / ".gitignore").write_text(".venv-test\n")
        self.run("git", "init", "--quiet", "--initial-branch=main")
        for name, value in (("user.name", "T"), ("user.email", "t@example.com"), ("commit.gpgsign", "false")):
            self.run("git", "config", name, value)
        assert self.commit("Begin").returncode == 0
        assert self.run(".venv-test/bin/pre-commit", "install").returncode == 0

    def run(self, *command) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def commit(self, subject: str, **files: str) -> subprocess.CompletedProcess:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)
        self.run("git", "add", ".")
        return self.run("git", "commit", "--quiet", "--message", subject)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_only_what_passes_is_committed(checkout):
    refused = checkout.commit("x" * 73, new="NUMBER = 1\n")
    assert refused.returncode == 1 and "has 73 characters, and at most 72 fit" in refused.stderr
    refused = checkout.commit("A fault", new="import os\n")
    assert refused.returncode == 1 and "F401" in refused.stderr
    refused = checkout.commit("Another format", new="NUMBER=1\n")
    assert refused.returncode == 1 and "Would reformat: new.py" in refused.stderr
    assert checkout.run("git", "log", "--format=%s").stdout == "Begin\n"
    done = checkout.commit("x" * 72, new="NUMBER = 1\n")
    assert done.returncode == 0, done.stderr
