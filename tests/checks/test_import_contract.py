"""The import contract holds in the tree as it is, and goes red where an import breaks it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = (
    "docker/server/lingbi",
    "docker/gateway/lingbi_gateway",
    "docker/pictures/lingbi_pictures",
    "docker/ui/lingbi_ui",
    "host",
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The code of this repository, to be broken."""
    folder = tmp_path_factory.mktemp("imports")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess:
    roots = [str((folder / package).parent) for package in PACKAGES]
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(roots), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )


def broken(copy: Path, imports: dict[str, str]) -> str:
    """What is said of the copy while modules ({path: imported}) import what they may not."""
    files = {copy / "docker/server" / module: imported for module, imported in imports.items()}
    before = {file: file.read_text() for file in files if file.exists()}
    try:
        for file, imported in files.items():
            file.write_text(f"{before.get(file, '')}\nimport {imported}\n")
        done = lint(copy)
    finally:
        for file in files:
            file.write_text(before[file]) if file in before else file.unlink()
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_imports_that_go_up_or_across_break_it(copy):
    """All in one look, which takes seconds; that the tree itself is kept is what scripts/check says."""
    wrong = {
        "lingbi/model/gpus.py": ("lingbi.http.app", "lingbi.model is not allowed to import lingbi.http"),
        "lingbi/vision/cache.py": ("lingbi.images.loader", "lingbi.vision is not allowed to import lingbi.images"),
        "lingbi/launch/up.py": ("lingbi.worker.main", "lingbi.launch is not allowed to import lingbi.worker"),
        "lingbi/errors.py": ("lingbi.settings", "lingbi.errors is not allowed to import lingbi.settings"),
        "lingbi/engine/cpu/sampling.py": (
            "lingbi.engine.turbomind.heap",
            "lingbi.engine.cpu is not allowed to import lingbi.engine.turbomind",
        ),
    }
    told = broken(copy, {module: imported for module, (imported, _) in wrong.items()})
    assert [said for _, said in wrong.values() if said not in told] == [], told


def test_a_circle_breaks_it_and_nothing_else(copy):
    told = broken(copy, {"lingbi/engine/sessions.py": "lingbi.engine.generation"})
    assert "No module imports itself in a circle BROKEN" in told and " 1 broken." in told, told


def test_a_module_without_a_layer_breaks_it(copy):
    told = broken(copy, {"lingbi/another.py": "lingbi.errors"})
    assert "lingbi.another" in told, told
