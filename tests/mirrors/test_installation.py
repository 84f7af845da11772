"""What scripts/environment installs comes from the mirrors of the settings, as locked; what is missing is told with its remedy."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, free_port
from tests.mirrors import builds
from tests.mirrors.stand_ins import mirror, offer, wheel

NOWHERE = {
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "NO_PROXY": "127.0.0.1",
}  # but this machine
OWN = ("PIP_", "UV_", "LINGBI_", "XDG_")  # of the machine that runs the tests
INSTALL = 'install_environment "$root/venv" "$root/lock"\n'


@pytest.fixture(scope="module")
def uv() -> str:
    """The uv that installs this machine's environments."""
    command = ["bash", "-c", f"source {ROOT}/scripts/environment; find_uv"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def index():
    """A mirror of PyPI that has nothing yet."""
    with mirror() as server:
        yield server


@pytest.fixture
def source(tmp_path):
    """Run bash lines after scripts/environment was sourced, for a folder of their own that reaches this machine alone."""
    home, docker = tmp_path / "home", tmp_path / "docker"
    for folder in (home, docker):
        folder.mkdir()

    def run(lines: str, **environment) -> subprocess.CompletedProcess:
        script = f"set -euo pipefail\nsource {ROOT}/scripts/environment\nroot={tmp_path} install_mib=1\n{lines}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        values = kept | NOWHERE | {"HOME": str(home), "PIP_CONFIG_FILE": os.devnull} | environment
        return subprocess.run(["bash", "-c", script], env=values, capture_output=True, text=True, timeout=120)

    return run


def given(uv: str, python: str = sys.executable) -> str:
    return f'find_uv() {{ echo "{uv}"; }}\nfind_python() {{ echo "{python}"; }}\n'


class TestPackages:
    def test_they_come_from_the_index_of_the_settings_and_from_nowhere_else(self, source, tmp_path, uv, index):
        (tmp_path / "lock").write_text(offer(index, "probe", wheel("probe")))
        done = source(given(uv) + INSTALL, LINGBI_INDEX_URL=f"{index.url}/simple")
        assert done.returncode == 0, done.stderr
        assert [file.name for file in (tmp_path / "venv/lib").rglob("probe.py")] == ["probe.py"]
        assert index.asked[0] == "/simple/probe/" and index.asked[-1] == "/files/probe-1-py3-none-any.whl"
        written = [file for file in (tmp_path / "venv").rglob("*") if file.is_file() and not file.is_symlink()]
        assert len(written) > 5 and not [file for file in written if index.url.encode() in file.read_bytes()]

    def test_without_the_setting_what_uv_is_set_to_stays(self, source, tmp_path, uv, index):
        (tmp_path / "lock").write_text(offer(index, "probe", wheel("probe")))
        done = source(given(uv) + INSTALL, UV_DEFAULT_INDEX=f"{index.url}/simple")
        assert done.returncode == 0 and index.asked, done.stderr

    def test_other_bytes_than_the_locks_are_refused_by_name(self, source, tmp_path, uv, index):
        (tmp_path / "lock").write_text(offer(index, "probe", wheel("probe")))
        offer(index, "probe", wheel("probe", script="#!/bin/sh\n"))
        done = source(given(uv) + INSTALL, LINGBI_INDEX_URL=f"{index.url}/simple")
        assert done.returncode == 2 and not (tmp_path / "venv").exists()
        assert "Hash mismatch for `probe==1`" in done.stderr
        assert f"Packages come from {index.url}/simple: LINGBI_INDEX_URL=… takes another" in done.stderr
        assert "as it must where a hash does not match" in done.stderr

    def test_an_index_that_does_not_answer_is_told_with_the_reason(self, source, tmp_path, uv, index):
        (tmp_path / "lock").write_text(offer(index, "probe", wheel("probe")))
        nobody = f"http://127.0.0.1:{free_port()}/simple"
        done = source(given(uv) + INSTALL, LINGBI_INDEX_URL=nobody, UV_HTTP_RETRIES="0")
        assert done.returncode == 2 and not (tmp_path / "venv").exists()
        assert "Connection refused" in done.stderr and f"Packages come from {nobody}" in done.stderr

    def test_without_a_home_nothing_is_written_outside(self, source, tmp_path, uv, index):
        (tmp_path / "lock").write_text(offer(index, "probe", wheel("probe")))
        done = source(given(uv) + INSTALL, LINGBI_INDEX_URL=f"{index.url}/simple", HOME="/nonexistent")
        assert done.returncode == 0 and (tmp_path / ".lingbi/cache/uv").is_dir(), done.stderr


class TestUv:
    """Installed by the real pip, from a mirror whose `uv` is a script of a line."""

    def install(self, source, tmp_path, index, line):
        (tmp_path / "docker/uv-requirements.lock").write_text(line)
        return source("uv() { false; }\nfind_uv", LINGBI_INDEX_URL=f"{index.url}/simple")

    def test_it_comes_from_the_index_of_the_settings(self, source, tmp_path, index):
        line = offer(index, "uv", wheel("uv", script="#!/bin/sh\necho uv\n"))
        done = self.install(source, tmp_path, index, line)
        assert done.returncode == 0 and done.stdout == f"{tmp_path}/.lingbi/tools/bin/uv\n", done.stderr
        assert subprocess.run([done.stdout.strip()], capture_output=True, text=True).stdout == "uv\n"
        assert index.asked == ["/simple/uv/", "/files/uv-1-py3-none-any.whl"]

    def test_other_bytes_are_refused_by_name(self, source, tmp_path, index):
        line = offer(index, "uv", wheel("uv"))
        offer(index, "uv", wheel("uv", script="#!/bin/sh\n"))
        done = self.install(source, tmp_path, index, line)
        assert done.returncode == 2 and "DO NOT MATCH THE HASHES" in done.stderr and "uv==1" in done.stderr
        assert f"Packages come from {index.url}/simple" in done.stderr


class TestPython:
    """uv's own downloads, from a mirror that has this machine's CPython."""

    def install(self, source, tmp_path, uv, server, digest=""):
        listed = tmp_path / "builds.json"
        path = builds.offer(server, "3.10", listed, digest)
        lines = f'python3.10() {{ false; }}\nuse_mirrors\nfind_python "{uv}"'
        mirrors = {"LINGBI_PYTHON_MIRROR": f"{server.url}/builds", "UV_PYTHON_DOWNLOADS_JSON_URL": str(listed)}
        return path, source(lines, PYENV_ROOT="/none", **mirrors)

    def test_they_come_from_the_mirror_of_the_settings(self, source, tmp_path, uv, index):
        path, done = self.install(source, tmp_path, uv, index)
        assert done.returncode == 0 and index.asked == [path], done.stderr
        told = subprocess.run(
            [done.stdout.strip(), "-c", "import ssl, sys; print(sys.prefix)"], capture_output=True, text=True
        )
        assert told.stdout.startswith(str(tmp_path / "home")), told.stderr
        assert not (tmp_path / "home/.local/bin").exists(), "nothing of ours is put on the PATH"

    def test_other_bytes_are_refused_by_name_with_the_remedy(self, source, tmp_path, uv, index):
        _, done = self.install(source, tmp_path, uv, index, digest="a" * 64)
        assert done.returncode == 2 and "Hash mismatch for `cpython-3.10" in done.stderr, done.stderr
        assert "error: CPython 3.10 is not here, and uv could not fetch it" in done.stderr
        assert "LINGBI_PYTHON_MIRROR=…" in done.stderr
