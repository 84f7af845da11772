"""A newer bundle in the place of an older one: what is the operator's stays, and the stack is the same one."""

import json
import os
import re
import subprocess

import pytest

from host.env_file import changed, parse
from tests.compose.conftest import first_env
from tests.conftest import ROOT
from tests.containers import images
from tests.containers.images import docker
from tests.host.test_bundle import bundle, small_images  # noqa: F401 - a fixture

OF_THE_OPERATOR = ("secrets/api-key", "secrets/logins/logins", ".lingbi/locks/x.json", "models/mine/config.json")
NAMES = {"lingbi-0.1.0": "lingbi-1.0.0", "lingbi-0.2.0": "lingbi-1.1.0"}


def documented(page: str) -> list:
    """The commands of the documented upgrade, with the test's versions, and without the start."""
    [block] = [
        text for text in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.S) if "lingbi-0.2.0" in text
    ]
    for name, own in NAMES.items():
        block = block.replace(name, own)
    start = " && scripts/up --docker\n"
    assert block.endswith(start)
    return block[: -len(start)]


@pytest.fixture
def archives(small_images, tmp_path):  # noqa: F811
    """A folder with bundles of two versions, the first of which is unpacked."""
    for name in images.NAMES:
        docker("tag", f"{small_images}{name}:1.0.0", f"{small_images}{name}:1.1.0")
    for version in ("1.0.0", "1.1.0"):
        done = bundle("--to", tmp_path / f"lingbi-{version}.tar", "--version", version, "--prefix", small_images)
        assert done.returncode == 0, done.stderr
    docker("rmi", *(f"{small_images}{name}:1.1.0" for name in images.NAMES))
    subprocess.run(["tar", "-xf", "lingbi-1.0.0.tar"], cwd=tmp_path, check=True)
    yield tmp_path
    docker("rmi", *(f"{small_images}{name}:1.1.0" for name in images.NAMES), check=False)


def rendered(folder) -> dict:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LINGBI_", "COMPOSE_"))}
    command = ["docker", "compose", "config", "--format=json"]
    return json.loads(subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=True).stdout)


def test_settings_keys_and_state_stay_where_the_next_version_comes(archives, small_images):  # noqa: F811
    folder = archives / "lingbi-1.0.0"
    env = first_env("lab-of-mine", "10.213.14", 6006, LINGBI_VERSION="1.0.0", LINGBI_IMAGE_PREFIX=small_images)
    (folder / ".env").write_text(f"# mine\n{env}")
    for name in OF_THE_OPERATOR:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of the operator\n")
    before = rendered(folder)
    commands = documented("docs/containers.md")
    assert commands == documented("docs/containers.zh-CN.md")
    done = subprocess.run(["bash", "-euxc", commands], cwd=archives, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / ".env").read_text() == changed(f"# mine\n{env}", {"LINGBI_VERSION": "1.1.0"})
    assert parse((folder / ".env").read_text())["COMPOSE_PROJECT_NAME"] == "lab-of-mine"
    assert [name for name in OF_THE_OPERATOR if (folder / name).read_text() != f"{name} of the operator\n"] == []
    after = rendered(folder)
    assert after["volumes"] == before["volumes"] and after["name"] == before["name"]
    assert {service["image"].rpartition(":")[2] for service in after["services"].values()} == {"1.1.0"}
    assert docker("image", "inspect", f"{small_images}server:1.1.0").returncode == 0
