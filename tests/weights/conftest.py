"""A local hub with a small model, and the commands run against it as people run them."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from lingbi.commands import MODULES
from lingbi.settings import load_settings
from lingbi.weights.fetch import Order, fetch
from lingbi.weights.hub import import_client
from lingbi.weights.progress import Progress
from tests.conftest import DEMO, clean_environment
from tests.hub import running_hub

MODEL = "lab/model"
MIB = 1 << 20


import_client()  # it reads its settings once a process: the shorter patience of a test is not for the others


@pytest.fixture
def hub(tmp_path):
    """A hub that serves the demo model with 3 MiB of weights more, as lab/model."""
    with small_hub(tmp_path / "hub") as hub:
        yield hub


@contextlib.contextmanager
def small_hub(root):
    """The same for a fixture that serves several tests."""
    make_model(root / MODEL, 3 * MIB)
    with running_hub(root) as hub:
        yield hub


def make_model(folder, extra_bytes: int):
    """The demo model with a second, random file of weights."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "extra.dat").write_bytes(os.urandom(extra_bytes))
    return folder


def order(hub, folder, update=False, **settings) -> Order:
    values = {"hub_endpoint": hub.url, "fetch_patience_s": 3} | settings
    return Order(MODEL, folder, load_settings(**values), update)


def fetch_from(hub, folder, update=False, **settings):
    """Fetch lab/model in this process; returns its lock."""
    return fetch(order(hub, folder, update, **settings), Progress())


def command(module: str, *arguments, state_dir, **options):
    """`python -m lingbi.MODULE` as a Popen, with its output as text."""
    return subprocess.Popen(
        [sys.executable, "-m", MODULES[module], *map(str, arguments)],
        env=clean_environment(state_dir) | options.pop("env", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(module: str, *arguments, state_dir, **options):
    """As command(), to its end: (exit status, stdout, stderr)."""
    process = command(module, *arguments, state_dir=state_dir, **options)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def same_files(folder, other) -> bool:
    """Whether two folders hold the same model files, whatever lingbi keeps beside them."""

    def contents(root):
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and ".lingbi" not in path.parts
        }

    return contents(folder) == contents(other)


@pytest.fixture
def to(tmp_path):
    return tmp_path / "volume" / "model"


def left_behind(folder) -> list:
    """What a failed fetch put where a model's files belong."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lingbi") if folder.exists() else []


def model_files(folder) -> list:
    """The files of a model folder, without lingbi's own."""
    return [path for path in folder.rglob("*") if path.is_file() and ".lingbi" not in path.parts]
