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


def test_the_copy_is_kept(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert " 0 broken." in done.stdout


@pytest.mark.parametrize(
    ("module", "imported", "said"),
    [
        ("lingbi/model/gpus.py", "lingbi.http.app", "lingbi.model is not allowed to import lingbi.http"),
        ("lingbi/vision/cache.py", "lingbi.images.loader", "lingbi.vision is not allowed to import lingbi.images"),
        ("lingbi/launch/up.py", "lingbi.worker.main", "lingbi.launch is not allowed to import lingbi.worker"),
        ("lingbi/errors.py", "lingbi.settings", "lingbi.errors is not allowed to import lingbi.settings"),
        ("lingbi/engine/cpu/sampling.py", "lingbi.engine.turbomind.heap", "lingbi.engine.cpu is not allowed to import"),
        ("lingbi/engine/sessions.py", "lingbi.engine.generation", "circle"),
        ("lingbi/another.py", "lingbi.errors", "lingbi.another"),
    ],
)
def test_a_bad_import_breaks_it(copy, module, imported, said):
    file = copy / "docker/server" / module
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\nimport {imported}\n")
    try:
        done = lint(copy)
    finally:
        file.unlink() if before is None else file.write_text(before)
    assert done.returncode == 1, done.stdout
    assert said in done.stdout
