"""scripts/environment: what is installed stays until what comes in its place is whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lingbi.launch.supervision import wait_until
from tests.conftest import ROOT

UV = """#!/bin/bash
# Stands for uv: a "venv" is a folder, a "sync" does what the test says.
case $1 in
    --version) echo "uv 0" ;;
    venv) mkdir -p "${!#}/bin" "${!#}/lib/python3.10/site-packages"; echo made >>"$LOG" ;;
    pip) touch "$LOG.syncing"; eval "$SYNC" ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Run bash lines after scripts/environment was sourced, in a checkout of their own; returns the Popen."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(UV)
    (tools / "uv").chmod(0o755)
    (tmp_path / "lock").write_text("a==1\n")
    (tmp_path / "tmp").mkdir()

    def run(lines, sync="true", **environment):
        script = f"set -euo pipefail\nsource {ROOT}/scripts/environment\nroot={tmp_path} install_mib=1\n{lines}"
        values = {"PATH": f"{tools}:{os.environ['PATH']}", "SYNC": sync, "LOG": str(tmp_path / "log")}
        values |= {"TMPDIR": str(tmp_path / "tmp")} | environment
        return subprocess.Popen(
            ["bash", "-c", script],
            env=os.environ | values,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C goes to the whole group
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return run


def ended(process) -> tuple:
    output, errors = process.communicate(timeout=30)
    return process.returncode, output + errors


INSTALL = 'install_environment "$root/venv" "$root/lock"\n'


@pytest.fixture
def installed(install, tmp_path):
    """An environment that is there, and whose lock has changed since."""
    assert ended(install(INSTALL))[0] == 0
    (tmp_path / "venv" / "working").touch()
    (tmp_path / "lock").write_text("a==2\n")
    return tmp_path / "venv"


def left(tmp_path) -> set:
    return {path.name for path in (tmp_path / ".lingbi").iterdir()} - {"tools", "install.lock"}


def test_it_is_installed_once_and_again_for_another_lock(install, tmp_path):
    for lock, made in (("a==1\n", 1), ("a==1\n", 1), ("a==2\n", 2)):
        (tmp_path / "lock").write_text(lock)
        assert ended(install(INSTALL))[0] == 0
        assert (tmp_path / "log").read_text().count("made") == made
    assert left(tmp_path) == set()


def test_an_installation_that_fails_leaves_the_former_one(install, installed, tmp_path):
    status, said = ended(install(INSTALL, sync="exit 1"))
    assert status == 2 and "could not be installed" in said
    assert (installed / "working").exists() and left(tmp_path) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_interrupted_leaves_the_former_one(install, installed, tmp_path, number):
    (tmp_path / "log.syncing").unlink()
    process = install(INSTALL, sync="sleep 30")
    assert wait_until((tmp_path / "log.syncing").exists, 20)
    os.killpg(process.pid, number)
    status, said = ended(process)
    assert status in (130, -number) and f"{installed} is as it was" in said
    assert (installed / "working").exists() and left(tmp_path) == set()


def test_two_at_once_install_once_and_both_go_on(install, tmp_path):
    both = [install(INSTALL + "echo went on", sync="sleep 1") for _ in range(2)]
    ends = [ended(process) for process in both]
    assert [status for status, _ in ends] == [0, 0] and all("went on" in said for _, said in ends)
    assert (tmp_path / "log").read_text().count("made") == 1
    assert any("Another script is installing here" in said for _, said in ends)


@pytest.mark.parametrize("missing", ["find_uv", "find_python"])
def test_without_uv_or_python_it_ends_with_2(install, tmp_path, missing):
    status, said = ended(install(f'{missing}() {{ fail "no {missing}"; }}\n{INSTALL}echo went on'))
    assert status == 2 and f"no {missing}" in said and "went on" not in said
    assert not (tmp_path / "log").exists()


def test_python_is_found_where_home_is_unset(install):
    status, said = ended(install('unset HOME PYENV_ROOT\npython3.10() { echo "called"; }\nfind_python uv'))
    assert status == 0 and "unbound variable" not in said and said.strip().endswith("python3.10"), said


@pytest.mark.parametrize(
    ("here", "taken"),
    [("3.13 3.11", "python3.13"), ("3.12 3.11", "python3.12"), ("3.11", "python3.11"), ("", "fetched")],
)
def test_the_page_takes_the_newest_python_that_is_here(install, tmp_path, here, taken):
    """What is not among those that are here ends as a shim without its program does."""
    uv = '#!/bin/bash\n[ "$1 $2 $3" = "python install --no-bin" ] || echo "fetched"\n'
    (tmp_path / "tools/uv").write_text(uv)
    every = "".join(
        f"python{version}() {{ {str(version in here.split()).lower()}; }}\n" for version in ("3.13", "3.12", "3.11")
    )
    lines = f'PYENV_ROOT=/none\n{every}pythons=("${{page_pythons[@]}}")\nfind_python "$(command -v uv)"'
    status, said = ended(install(lines))
    assert status == 0 and said.splitlines()[0] == taken, said


def test_too_little_disk_is_told_with_both_numbers(install, tmp_path):
    status, said = ended(install("install_mib=999999999\n" + INSTALL))
    assert status == 2 and "needs 999999999 MiB of disk, and " in said and "MiB are free at" in said
    assert not (tmp_path / "venv").exists()


def test_what_ends_or_checks_a_server_uses_the_environment_that_is_there(install, installed, tmp_path):
    use = INSTALL.replace("install_environment", "use_environment")
    assert ended(install(use)) == (0, "") and (tmp_path / "log").read_text().count("made") == 1
    assert ended(install(use.replace("/venv", "/none")))[0] == 0 and (tmp_path / "none" / "locked").exists()
    for name in ("down", "smoke"):
        assert "use_environment" in (ROOT / "scripts" / name).read_text()


def test_nginx_interrupted_leaves_no_temporary_folder(install, tmp_path):
    (tmp_path / "tools" / "apt-get").write_text('#!/bin/bash\ntouch "$LOG.syncing"; sleep 30\n')
    (tmp_path / "tools" / "apt-get").chmod(0o755)
    process = install("one_at_a_time unpack_nginx")
    assert wait_until((tmp_path / "log.syncing").exists, 60)
    assert list((tmp_path / "tmp").iterdir()) != []
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process)[0] in (130, -signal.SIGINT)
    assert wait_until(lambda: list((tmp_path / "tmp").iterdir()) == [], 10)


def test_this_environment_was_moved_to_its_place_and_its_commands_run():
    """What pip would write into bin/ names the folder in which it was built."""
    bin_folder = Path(sys.executable).parent
    assert not [file.name for file in bin_folder.iterdir() if b".lingbi/new" in file.read_bytes()]
    assert subprocess.run([bin_folder / "supervisord", "--help"], capture_output=True, timeout=60).returncode == 0
