"""scripts/uninstall on machines of fake programs: what goes, what stays, and what stops it before anything is removed."""

import pytest

from host.uninstall import to_remove
from tests.host.test_commands import compose, script  # noqa: F401 - a fixture

IMAGES = '{{"Repository": "lingbi-test/server", "Tag": "0.0.{0}", "ID": "sha256:{0}", "CreatedAt": "2026-04-01 10:00:00 +0000 UTC"}}'
CACHE = (
    '[{"ID": "abc", "Description": "mount / from exec … /opt/lingbi", "CreatedAt": "2026-04-01 10:00:00 +0000 UTC"}]'
)
KEY = ".lingbi/keys"
STAYS = (".env", "secrets/api-key", "models/x/config.json", ".lingbi/api-key", KEY)
GOES = (
    ".venv-ui/bin/python",
    ".lingbi/tools/uv",
    ".lingbi/logs/worker-0.log",
    "monitoring/prometheus/targets/servers.yml",
)


@pytest.fixture
def installed(root, script):  # noqa: F811
    """The folder of an installation in containers that ran natively before."""
    for name in (*STAYS[1:], *GOES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def have_docker(machine, **answers) -> None:
    machine.have_docker(**answers)
    images = "; ".join(f"echo '{IMAGES.format(number)}'" for number in (1, 2))
    (machine.folder / "cache").write_text(CACHE)
    added = f"""    "image ls"*server*) {images} ;;
    "system df"*) cat "{machine.folder}/cache" ;;
    "builder prune"*) echo "Total:	1.5GB" ;;
esac"""
    text = (machine.folder / "docker").read_text()
    (machine.folder / "docker").write_text(added.join(text.rsplit("esac", 1)))


def test_software_goes_and_what_cannot_be_made_again_stays(machine, installed, script):  # noqa: F811
    have_docker(machine)
    done = script("uninstall")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name in STAYS if not (installed / name).exists()] == []
    assert [name for name in GOES if (installed / name).exists()] == [] and not (installed / ".venv-ui").exists()
    calls = machine.calls()
    assert compose(installed, "--profile * down --remove-orphans --rmi all") in calls
    assert "image rm lingbi-test/server:0.0.1" in calls and "image rm lingbi-test/server:0.0.2" in calls
    assert "builder prune --all --force --filter=id=abc" in calls and "1.5 GB of builds' cache" in done.stdout
    assert "kept: .env, secrets/" in done.stdout and f"rm -rf {installed}" in done.stdout


def test_with_its_data_everything_of_ours_goes(machine, installed, script):  # noqa: F811
    have_docker(machine)
    done = script("uninstall", "--data", "--keep-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name in (*STAYS, *GOES) if (installed / name).exists()] == [] and not (
        installed / ".lingbi"
    ).exists()
    calls = machine.calls()
    assert compose(installed, "--profile * down --remove-orphans --rmi all --volumes") in calls
    assert not [call for call in calls if call.startswith("builder prune")] and (installed / "scripts/up").exists()


def test_the_stack_of_another_folder_is_left_alone(machine, installed, script):  # noqa: F811
    have_docker(machine)
    text = (machine.folder / "docker").read_text()
    (machine.folder / "docker").write_text(
        text.replace('case "$*" in\n', 'case "$*" in\n    "ps --all"*) echo /other ;;\n', 1)
    )
    done = script("uninstall", "--data")
    assert done.returncode == 2 and "belong to /other; run scripts/uninstall there" in done.stderr
    assert not [call for call in machine.calls() if " down " in call] and (installed / ".env").exists()


def test_in_a_state_folder_elsewhere_only_what_is_known_to_be_ours_goes(tmp_path):
    state = tmp_path / "home"
    for name in ("keys", "logs/x.log", "gateway/tls/key.pem", "files/file-1", "files/thesis.tex"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("")
    assert to_remove(tmp_path / "clone", state, False) == [state / "logs"]
    ours = [state / name for name in ("logs", "gateway", "keys")]
    assert to_remove(tmp_path / "clone", state, True) == [*ours, state / "files/file-1"]
    (state / "files/thesis.tex").unlink()
    assert to_remove(tmp_path / "clone", state, True) == [*ours, state / "files"]


def native(root, status: int) -> None:
    """An environment whose Python notes what it is asked for."""
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*" >>"{root}/asked"\nexit {status}\n')
    python.chmod(0o755)


def test_a_native_installation_ends_first_its_unit_too(machine, installed, script):  # noqa: F811
    native(installed, 0)
    done = script("uninstall")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (installed / "asked").read_text().splitlines() == [
        "-m lingbi.launch.service remove --if-there",
        "-m lingbi.launch.down",
    ]
    assert not (installed / ".venv").exists() and (installed / KEY).exists()


def test_what_does_not_end_is_not_removed(machine, installed, script):  # noqa: F811
    native(installed, 2)
    done = script("uninstall", "--data")
    assert done.returncode == 3 and "what runs natively did not end" in done.stderr
    assert (installed / ".venv").exists() and [
        name for name in (*STAYS, *GOES) if not (installed / name).exists()
    ] == []
