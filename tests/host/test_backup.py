"""scripts/backup and scripts/restore: what is saved, and where it goes back."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from host.backup import places, volumes
from lingbi.launch.supervision import gateway_folders
from tests.compose.conftest import copy_repository, first_env

# docker whose containers' folders lie in a folder of the machine; what it runs in them is run.
DOCKER = """\
#!/bin/sh
echo "$*" >>"{folder}/calls"
case "$*" in
    info*) echo '{{"ServerVersion": "26.1.5", "Runtimes": {{}}}}' ;;
    *"compose version"*) echo 2.30.1 ;;
    *" ps "*) {running} ;;
    *" -c "*) while [ "$1" != -c ]; do shift; done; exec sh -c "$2" sh "{folder}/volumes$4" "$5" ;;
esac
"""
FILES = {
    ".env": "LINGBI_VERSION=0.1.0\n",
    "secrets/api-key": "lb-operator\n",
    "secrets/logins/logins": "alice scrypt:…\n",
    ".lingbi/api-key": "lb-native\n",
    ".lingbi/keys": "default sha256:" + "0" * 64 + "\n",
    ".lingbi/logins": "bob scrypt:…\n",
}
KEY = {"gateway/tls/key.pem": "KEY\n"}


@pytest.fixture
def other(tmp_path):
    return copy_repository(tmp_path / "other")


@pytest.fixture
def docker(machine):
    """A function that makes an engine with volumes; running: shell code of `docker compose ps`."""

    def have(running: str = "true") -> Path:
        if not (machine.folder / "tar").exists():
            (machine.folder / "tar").symlink_to(shutil.which("tar"))
        machine.have("docker", DOCKER.format(folder=machine.folder, running=running))
        for name in ("var/lib/lingbi", "var/lib/lingbi-gateway", "models"):
            (machine.folder / "volumes" / name).mkdir(parents=True, exist_ok=True)
        return machine.folder / "volumes"

    return have


def put(root: Path, files: dict, mode: int = 0o600) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(mode)


def names(file: Path) -> list:
    with tarfile.open(file) as opened:
        return opened.getnames()


def test_what_was_saved_is_back_in_an_empty_clone(machine, root, other, tmp_path):
    put(root, FILES)
    put(root / ".lingbi", KEY)
    (root / "secrets/api-key").chmod(0o644)  # the containers' user reads it
    put(
        root,
        {"models/vl/.lingbi/lock.json": "{}", "models/vl/pytorch_model.bin": "weights", ".lingbi/logs/x.log": "log"},
    )
    saved = machine.run(root, "host.backup.save", "--without-volumes", tmp_path / "b.tar")
    assert saved.returncode == 0 and (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600, saved.stderr
    assert names(tmp_path / "b.tar")[-1] == "manifest.json" and "weights" not in (tmp_path / "b.tar").read_text()
    done = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert done.returncode == 0, done.stderr
    certificate = places.gateway_folder(other / ".lingbi")  # root's, where nobody else may enter
    assert (certificate / "tls/key.pem").read_text() == KEY["gateway/tls/key.pem"]
    for name, text in FILES.items():
        assert (other / name).read_text() == text, name
        assert (other / name).stat().st_mode & 0o777 == (0o644 if name == "secrets/api-key" else 0o600)
    assert (other / "secrets").stat().st_mode & 0o777 == 0o700
    assert (
        other / ".lingbi/locks/vl.lock.json"
    ).read_text() == "{}" and "--lock .lingbi/locks/vl.lock.json" in done.stdout
    again = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert again.returncode == 0  # the same files are no loss
    shutil.rmtree(certificate)


def test_keys_of_containers_go_from_volume_to_volume(machine, root, other, tmp_path, docker):
    put(root, {".env": first_env("lingbi-test-fake", "10.213.13", 6006)})
    volume = docker(running="echo 1")
    put(volume, {"var/lib/lingbi/keys": "alice sha256:…\n", "var/lib/lingbi/logs/worker.log": "log"})
    put(volume, {"models/vl-7b/.lingbi/lock.json": "{}", "var/lib/lingbi-gateway/tls/key.pem": "KEY\n"})
    saved = machine.run(root, "host.backup.save", tmp_path / "b.tar")
    assert saved.returncode == 0, saved.stderr
    held = {"volume/state/keys", "volume/gateway/tls/key.pem", "locks/vl-7b.lock.json"}
    assert held <= set(names(tmp_path / "b.tar")) and "volume/state/logs/worker.log" not in names(tmp_path / "b.tar")
    assert any("exec --no-TTY server sh" in call for call in machine.calls())

    shutil.rmtree(volume)
    docker()
    done = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert done.returncode == 0 and "scripts/up --docker" in done.stdout, done.stderr
    assert (volume / "var/lib/lingbi/keys").read_text() == "alice sha256:…\n"
    assert (volume / "var/lib/lingbi-gateway/tls/key.pem").stat().st_mode & 0o777 == 0o600
    assert any("run --rm --no-deps --no-TTY --entrypoint sh weights" in call for call in machine.calls())
    assert (other / ".env").read_text() == (root / ".env").read_text()


def test_a_stack_without_settings_of_its_own_is_saved_too(machine, root, other, tmp_path, docker):
    volume = docker(running="echo 1")
    put(volume, {"var/lib/lingbi/keys": "alice sha256:…\n", "var/lib/lingbi/api-key": "lb-operator\n"})
    saved = machine.run(root, "host.backup.save", tmp_path / "b.tar")
    assert saved.returncode == 0 and "volume/state/api-key" in names(tmp_path / "b.tar"), saved.stderr
    shutil.rmtree(volume)
    docker()
    done = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert done.returncode == 0 and "scripts/up --docker" in done.stdout, done.stderr
    assert (volume / "var/lib/lingbi/api-key").read_text() == "lb-operator\n" and not (other / ".env").exists()


def test_a_backup_without_the_volumes_keys_is_not_made_in_silence(machine, root, tmp_path):
    put(root, {".env": FILES[".env"]})
    done = machine.run(root, "host.backup.save", tmp_path / "b.tar")
    assert done.returncode == 2 and "--without-volumes" in done.stderr and not (tmp_path / "b.tar").exists()


def test_nothing_to_save_and_a_file_that_is_there_are_refused(machine, root, tmp_path):
    done = machine.run(root, "host.backup.save", tmp_path / "b.tar")
    assert done.returncode == 2 and "nothing to back up" in done.stderr
    put(root, {".lingbi/api-key": "lb-native\n"})
    (tmp_path / "b.tar").write_text("mine")
    done = machine.run(root, "host.backup.save", tmp_path / "b.tar")
    assert done.returncode == 2 and "--force" in done.stderr and (tmp_path / "b.tar").read_text() == "mine"
    assert machine.run(root, "host.backup.save", "--force", tmp_path / "b.tar").returncode == 0
    done = machine.run(root, "host.backup.save", tmp_path / "none/b.tar")
    assert done.returncode == 2 and "is no folder" in done.stderr


def test_what_is_there_is_not_overwritten_unless_told(machine, root, other, tmp_path):
    put(root, {".lingbi/api-key": "lb-old\n", ".lingbi/logins": "alice\n"})
    assert machine.run(root, "host.backup.save", tmp_path / "b.tar").returncode == 0
    put(other, {".lingbi/api-key": "lb-new\n"})
    done = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert done.returncode == 2 and f"{other}/.lingbi/api-key" in done.stderr and "--force" in done.stderr
    assert (other / ".lingbi/api-key").read_text() == "lb-new\n" and not (other / ".lingbi/logins").exists()
    assert machine.run(other, "host.backup.restore", "--force", tmp_path / "b.tar").returncode == 0
    assert (other / ".lingbi/api-key").read_text() == "lb-old\n"


def test_a_running_stack_is_refused(machine, root, other, tmp_path, docker):
    put(root, {".lingbi/api-key": "lb-old\n"})
    assert machine.run(root, "host.backup.save", tmp_path / "b.tar").returncode == 0
    docker(running="echo 1")
    put(other, {".env": FILES[".env"]})
    done = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert done.returncode == 2 and "lingbi runs here" in done.stderr and not (other / ".lingbi").exists()


def test_files_and_folders_that_settings_name_are_saved_too(machine, root, other, tmp_path):
    token, tls = tmp_path / "token", tmp_path / "tls"
    put(tmp_path, {"token": "hub-token\n", "tls/key.pem": "KEY\n", "tls/certificate.pem": "CERTIFICATE\n"})
    start = {
        "program": "scripts/up",
        "settings": {"LINGBI_HUB_TOKEN_FILE": str(token)},
        "arguments": ["--model", "vl-7b"],
    }
    put(root, {".lingbi/start.json": json.dumps(start), ".env": f"LINGBI_VERSION=0.1.0\nLINGBI_TLS_FOLDER={tls}\n"})
    assert machine.run(root, "host.backup.save", "--without-volumes", tmp_path / "b.tar").returncode == 0
    token.unlink()
    shutil.rmtree(tls)
    done = machine.run(other, "host.backup.restore", tmp_path / "b.tar")
    assert done.returncode == 0 and token.read_text() == "hub-token\n", done.stderr
    assert {file.name for file in tls.iterdir()} == set(places.TLS)


def test_the_gateways_folders_are_those_of_the_start(tmp_path):
    assert places.gateway_folders(tmp_path) == gateway_folders(tmp_path)


def test_volumes_that_are_away_are_read_in_a_new_container():
    assert volumes.command("state", "x", True)[:3] == ["exec", "--no-TTY", "server"]
    assert volumes.command("state", "x", False)[:6] == ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh"]
