"""What nginx is given: settings that are right or named, TLS, no rights beyond one folder, and what a static check says."""

import contextlib
import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from lingbi.api_errors import BodyTooLarge, NotReady
from lingbi.launch.supervision import wait_until
from lingbi_gateway import errors, nginx
from lingbi_gateway.__main__ import main as gateway_command
from lingbi_gateway.certificate import generate
from lingbi_gateway.configuration import Certificate, Machine, render, servers_file, write
from lingbi_gateway.settings import ConfigurationError, default_folder, load_settings
from tests.conftest import answers
from tests.gateway.conftest import Gateway, running_gateway


def test_plain_http_is_sent_to_https(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], TLS="generated") as gateway:
        certificate = gateway.folder / "tls" / "certificate.pem"
        assert httpx.get(gateway.url + "/v1/models", verify=str(certificate)).status_code == 200
        moved = httpx.post(f"http://127.0.0.1:{gateway.port}/v1/x?y=1", content=b"{}")
        assert moved.status_code == 308 and moved.headers["location"] == f"{gateway.url}/v1/x?y=1"
        assert (gateway.folder / "tls" / "key.pem").stat().st_mode & 0o077 == 0
        assert {_handshake(gateway.port, version) for version in ("TLSv1_2", "TLSv1_3")} == {"TLSv1.2", "TLSv1.3"}
        with pytest.raises(ssl.SSLError):
            _handshake(gateway.port, "TLSv1_1")
        files = {"TLS_CERTIFICATE_FILE": certificate, "TLS_KEY_FILE": gateway.folder / "tls" / "key.pem"}
        with running_gateway([server.address], TLS="given", **files) as given:
            answer = httpx.get(given.url + "/v1/models", verify=str(certificate))
        assert "max-age" in answer.headers["strict-transport-security"]


def _handshake(port: int, version: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as secure:
        return secure.version()


def test_a_key_is_its_owners_alone_whatever_was_there(tmp_path):
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o755)
    key = folder / "key.pem"
    key.write_text("an earlier key")
    key.chmod(0o644)
    made = generate(folder, ("lab.example",))
    assert made.key_file == key and key.stat().st_mode & 0o777 == 0o600 and "PRIVATE KEY" in key.read_text()
    key.chmod(0o644)
    assert generate(folder, ("lab.example",)) == made and key.stat().st_mode & 0o777 == 0o600


BAD_SETTINGS = {
    "LINGBI_GATEWAY_PROT": ("6006", "LINGBI_GATEWAY_PORT"),
    "LINGBI_GATEWAY_PORT": ("no", "from 1 to 65535"),
    "LINGBI_GATEWAY_SERVERS": ("10.0.0.1", "HOST:PORT"),
    "LINGBI_GATEWAY_ALLOW": ("10.0.0.1/8", "10.0.0.1/8"),
    "LINGBI_GATEWAY_TLS": ("yes", "generated"),
    "LINGBI_GATEWAY_DIR": ('/tmp/a"b', "quotes"),
    "LINGBI_GATEWAY_SERVERS_DIR": ("/tmp/a$b", "quotes"),
    "LINGBI_GATEWAY_KEY_RATE": ("0", "from 1"),
    "LINGBI_GATEWAY_HOST": ("localhost; evil", "localhost; evil"),
    "LINGBI_GATEWAY_UI": ("ui:7860; }", "HOST:PORT"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_bad_setting_is_named(name):
    value, remedy = BAD_SETTINGS[name]
    with pytest.raises(ConfigurationError, match=f"^{name}=") as caught:
        load_settings({name: value})
    assert remedy in str(caught.value)


def test_a_misspelt_setting_and_a_missing_nginx_end_with_2(tmp_path):
    for extra in ({"PROT": 1}, {"NGINX": "/nowhere/nginx"}, {"NGINX": "/bin/true"}, {"SERVERS": ""}):
        done = Gateway(tmp_path / "g", extra).command("render")
        assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done


def test_settings_can_be_judged_before_the_servers_have_listed_themselves():
    """As scripts/up does before a first start; a gateway that begins then would reach nobody."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        gateway = Gateway(Path(name, "g"), {"SERVERS": "", "WATCH": "on", "ALIASES": "default=demo"})
        done = gateway.command("render")
        assert (done.returncode, done.stderr) == (0, "") and not (gateway.folder / "servers").exists(), done.stderr
        done = gateway.command("run")
    assert done.returncode == 2 and "no servers are inside upstream" in done.stderr.splitlines()[-1], done.stderr


CLOSED = [  # what is closed to the gateway's user, by its mode, and the command that opens it
    ("key.pem", 0o600, "chgrp 65534 /lab/tls/key.pem && sudo chmod g+r /lab/tls/key.pem"),
    ("certificate.pem", 0o640, "chgrp 65534 /lab/tls/certificate.pem && sudo chmod g+r /lab/tls/certificate.pem"),
    (".", 0o700, "chgrp 65534 /lab/tls && sudo chmod g+x /lab/tls"),
]


@pytest.fixture
def given():
    """Settings of a gateway with files for TLS, in a folder that others can reach; it is LINGBI_TLS_FOLDER=/lab/tls."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("certificate.pem", "key.pem"):
            (folder / file).write_text("")
            (folder / file).chmod(0o644)
        files = {"CERTIFICATE": folder / "certificate.pem", "KEY": folder / "key.pem"}
        paths = {f"LINGBI_GATEWAY_TLS_{kind}_FILE": str(file) for kind, file in files.items()}
        yield {"LINGBI_GATEWAY_TLS": "given", "LINGBI_TLS_FOLDER": "/lab/tls", **paths}, folder


@contextlib.contextmanager
def as_nobody():
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize(("name", "mode", "remedy"), CLOSED)
def test_a_file_for_tls_that_its_user_cannot_read_is_told_with_the_remedy(given, name, mode, remedy):
    values, folder = given
    with as_nobody():
        load_settings(values)
    (folder / name).chmod(mode)
    with as_nobody(), pytest.raises(ConfigurationError) as caught:
        load_settings(values)
    said = f"user 65534 cannot read it, as {remedy.split()[-1]} has mode {mode:04o} and belongs to user 0; "
    assert said in str(caught.value) and str(caught.value).endswith(f"run on its machine: sudo {remedy}")
    shutil.chown(folder / name, group=65534)  # what the remedy does
    (folder / name).chmod(mode | (0o010 if name == "." else 0o040))
    with as_nobody():
        load_settings(values)


def test_a_link_out_of_the_folder_for_tls_is_told_as_that(given):
    values, folder = given
    (folder / "key.pem").unlink()
    (folder / "key.pem").symlink_to("../../archive/privkey1.pem")
    with pytest.raises(ConfigurationError, match=r"no such file \(it is a link to ../../archive/privkey1.pem\)"):
        load_settings(values)


def test_a_user_without_rights_can_run_it():
    """Who may write one folder only: what a container with a read-only root has."""
    account = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp())
    shutil.chown(folder, account.pw_uid)
    gateway = Gateway(folder, {"SERVERS": "127.0.0.1:9"})
    child = os.fork()
    if not child:  # this interpreter's own folder may be closed to others, so nothing is executed anew
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        os.environ.update(gateway.environment)
        os._exit(gateway_command(["render"]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "\nuser " not in (folder / "nginx.conf").read_text()
    command = nginx.command(load_settings(gateway.environment))
    process = subprocess.Popen(command, user="nobody", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_until(lambda: answers(gateway.url + "/healthz"), 10)
        assert httpx.get(gateway.url + "/v1/models").status_code == 503
    finally:
        process.terminate()
        said = process.communicate(timeout=10)[1]
        shutil.rmtree(folder)
    assert "[emerg]" not in said and "denied" not in said, said


@pytest.mark.parametrize("tls", ["off", "generated"])
def test_the_static_check_finds_nothing(tmp_path, tls):
    """gixy reads what is rendered, and does find what is wrong."""
    tmp_path.chmod(0o755)
    settings = load_settings(
        {"LINGBI_GATEWAY_DIR": str(tmp_path), "LINGBI_GATEWAY_SERVERS": "10.0.0.1:23333,10.0.0.2:23333"}
    )
    machine = Machine(("nobody", "nogroup"), 1 << 16, (1, 28, 0))
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate = Certificate(*files, ("lab.example", "::1")) if tls == "generated" else None
    write(tmp_path, render(settings, machine, certificate))
    write(settings.servers_folder, {"servers.conf": servers_file(settings, machine)})
    assert gixy(tmp_path / "nginx.conf") == []
    spoilt = (tmp_path / "nginx.conf").read_text().replace("proxy_pass http://page;", "proxy_pass http://$http_host;")
    (tmp_path / "nginx.conf").write_text(spoilt)
    assert gixy(tmp_path / "nginx.conf")


SKIPPED = {
    "status_page_exposed": "on the inner port, which is never published; on the other one, networks are allowed by name",
    "missing_resolver": "a proxy_pass with a variable names an upstream of this configuration; upstreams have their `resolve`",
    "host_spoofing": "the page is served under any name, and the port that people used stands only in what they sent",
}


def gixy(file: Path) -> list:
    """gixy's findings in a configuration, one sentence each, without those that are left out for a reason."""
    command = [Path(sys.executable).with_name("gixy"), "-f", "json", file]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [item for item in json.loads(done.stdout) if item["plugin"] not in SKIPPED]
    return [
        f"{item['plugin']} ({item['severity']}): {item['summary']} {item.get('config', '')[:300]}" for item in found
    ]


def test_its_errors_are_the_apis_own():
    codes = {fault.code: fault.status for fault in errors.FAULTS}
    assert codes[BodyTooLarge.code] == BodyTooLarge.status and codes[NotReady.code] == NotReady.status


def test_health_sees_that_its_folder_was_emptied(upstreams):
    """As systemd-tmpfiles does with the temporary folder after ten days."""
    (server,) = upstreams(1)
    with running_gateway([server.address]) as gateway:
        assert httpx.get(gateway.url + "/healthz").json() == {"status": "ok"}
        for entry in gateway.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
        assert httpx.get(gateway.url + "/healthz").status_code == 503


def test_health_sees_that_only_the_folder_of_bodies_is_gone(upstreams):
    """systemd-tmpfiles judges by age, and health's own file is read again and again."""
    (server,) = upstreams(1)
    with running_gateway([server.address]) as gateway:
        (gateway.folder / "body").rmdir()
        assert httpx.get(gateway.url + "/healthz").status_code == 503


def test_what_is_rendered_does_not_depend_on_the_umask(tmp_path):
    gateway = Gateway(tmp_path / "made" / "here", {"SERVERS": "127.0.0.1:9"})
    tmp_path.chmod(0o755)
    for part in tmp_path.parents:
        if part.stat().st_uid == os.geteuid() and not part.stat().st_mode & 0o001:
            part.chmod(part.stat().st_mode | 0o001)
    done = gateway.command("render", umask=0o077)
    assert done.returncode == 0, done.stderr
    own = [*gateway.folder.glob("*.conf"), *(gateway.folder / "errors").rglob("*"), gateway.folder / "health/healthz"]
    for path in (gateway.folder.parent, gateway.folder, gateway.folder / "errors", *own):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_no_default_folder_is_one_that_systems_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local/state/lingbi-gateway"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/lib/lingbi-gateway")
