"""TLS, a folder of weights and logins together: overrides that all change the same services, on one stack."""

import re
import shutil
import ssl
import subprocess

import httpx
import pytest

from host.env_file import parse
from tests.compose.conftest import copy_repository, new_stack
from tests.conftest import DEMO
from tests.containers.images import docker, inspect, worrying
from tests.images.conftest import EXPECTED, logs


@pytest.fixture(scope="module")
def closed_stack(all_images, tmp_path_factory):
    """A stack with a certificate of its own, a model that lies in a folder, and a login for alice."""
    folder = tmp_path_factory.mktemp("closed")
    root, model, tls = copy_repository(folder / "copy"), folder / "a model", folder / "tls"
    shutil.copytree(DEMO, model)
    tls.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days=2", "-subj=/CN=lab"]
    command += [
        "-addext=subjectAltName=DNS:lingbi.lab.example",
        f"-keyout={tls}/key.pem",
        f"-out={tls}/certificate.pem",
    ]
    subprocess.run(_words(command), check=True, capture_output=True)
    (tls / "key.pem").chmod(0o644)
    for path in (folder, *folder.parents[:2], model, tls):
        path.chmod(path.stat().st_mode | 0o755)
    with new_stack(root, "https", LINGBI_TLS_FOLDER=tls, COMPOSE_FILE="compose.yaml:compose.cpu.yaml") as stack:
        stack.tls, stack.password = tls, stack.script("login", "add", "alice").stdout.strip()
        done = stack.up("--model", model)
        assert done.returncode == 0, done.stderr
        yield stack


def _words(command: list) -> list:
    """openssl takes an option and its value apart."""
    return [part for word in command for part in (word.split("=", 1) if word.startswith("-") else [word])]


def login(stack, name: str, password: str) -> int:
    form = {"username": name, "password": password}
    return httpx.post(f"{stack.url}/login", data=form, verify=False).status_code


def test_all_overrides_are_chosen(closed_stack):
    chosen = parse((closed_stack.root / ".env").read_text())["COMPOSE_FILE"].split(":")
    assert sorted(chosen) == sorted(
        ["compose.yaml", "compose.cpu.yaml", "compose.tls.yaml", "compose.model-folder.yaml", "compose.logins.yaml"]
    )


def test_it_answers_by_content_over_tls_with_a_verified_certificate(closed_stack):
    done = closed_stack.script("smoke")
    assert f"0 failed: https://127.0.0.1:{closed_stack.port}, " in done.stdout, done.stdout + done.stderr
    failed = re.findall(r"^FAIL  (\S+)", done.stderr, re.M)
    assert failed == [], done.stderr
    assert (
        ssl.get_server_certificate(("127.0.0.1", closed_stack.port))
        == (closed_stack.tls / "certificate.pem").read_text()
    )


def test_a_certificate_of_another_authority_does_not_pass(closed_stack, tmp_path):
    command = ["openssl", "req", "-x509", "-newkey=rsa:2048", "-nodes", "-subj=/CN=lab", f"-keyout={tmp_path}/key.pem"]
    subprocess.run(_words([*command, f"-out={tmp_path}/certificate.pem"]), check=True, capture_output=True)
    done = closed_stack.script("smoke", "--ca-file", tmp_path / "certificate.pem")
    assert done.returncode == 2 and "self-signed certificate" in done.stderr, done.stderr


def test_a_key_that_the_gateway_cannot_read_is_told_before_anything_is_changed(closed_stack):
    key, before = closed_stack.tls / "key.pem", closed_stack.container("gateway")
    key.chmod(0o600)
    try:
        done = closed_stack.up()
    finally:
        key.chmod(0o644)
    assert done.returncode == 2 and closed_stack.container("gateway") == before, done.stderr
    assert f"user 10001 cannot read it, as {key} has mode 0600 and belongs to user 0" in done.stderr
    assert f"sudo chgrp 10001 {key} && sudo chmod g+r {key}" in done.stderr


def test_nothing_was_fetched_and_the_model_is_the_folders(closed_stack):
    [mount] = [item for item in inspect(closed_stack.container("server"))["Mounts"] if item["Destination"] == "/model"]
    assert not mount["RW"] and mount["Source"].endswith("/a model")
    networks = inspect(closed_stack.container("weights"))["NetworkSettings"]["Networks"]
    assert networks.keys() == {f"{closed_stack.project}_inside"}


def test_those_with_a_login_come_in_and_a_new_one_without_a_restart(closed_stack):
    assert httpx.get(f"{closed_stack.url}/config", verify=False).status_code == 401
    assert login(closed_stack, "alice", "wrong") == 400 and login(closed_stack, "alice", closed_stack.password) == 200
    password = closed_stack.script("login", "add", "bob").stdout.strip()
    assert login(closed_stack, "bob", password) == 200
    assert closed_stack.script("login", "remove", "alice").returncode == 0
    assert login(closed_stack, "alice", closed_stack.password) == 400
    assert not (closed_stack.root / ".venv-ui").exists()


def test_what_is_large_lies_on_a_disk_and_not_in_memory(closed_stack):
    """A tmpfs counts as the container's memory: bodies come before any key is looked at, uploads stay for a day."""
    for service, folder in (("gateway", "/var/lib/lingbi-gateway"), ("ui", "/var/lib/lingbi-ui")):
        told = docker("exec", closed_stack.container(service), "stat", "--file-system", "--format=%T", folder).stdout
        assert told.strip() != "tmpfs"
        assert docker("exec", closed_stack.container(service), "touch", f"{folder}/written").returncode == 0
    said = docker("exec", closed_stack.container("gateway"), "cat", "/var/lib/lingbi-gateway/nginx.conf").stdout
    assert 'client_body_temp_path "/var/lib/lingbi-gateway/body"' in said


def test_scripts_down_ends_it_and_key_works_without_it(closed_stack):
    unexpected = {name: worrying(logs(closed_stack.container(name)), EXPECTED) for name in ("server", "ui", "gateway")}
    assert unexpected == {"server": [], "ui": [], "gateway": []}
    assert closed_stack.script("down").returncode == 0
    assert closed_stack.compose("ps", "--all", "--quiet").stdout == ""
    done = closed_stack.script("key", "list")
    assert done.returncode == 0 and "default" in done.stdout, done.stderr
    assert closed_stack.script("smoke").returncode == 3 and not (closed_stack.root / ".venv").exists()
    assert closed_stack.script("down").returncode == 0
