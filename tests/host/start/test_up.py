"""scripts/up in containers, end to end on machines of fake programs: what is wrong stops it, and nothing is changed."""

import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from host import stack
from host.env_file import parse
from host.errors import Refusal
from host.start.up import SECRETS, make_secrets, write_targets
from lingbi.client.addresses import record_file
from tests.conftest import free_port
from tests.host.machine import FakeMachine

GPU = "GPU 0: NVIDIA L4 (UUID: GPU-a)"
KEY = "lb-0123456789abcdef0123456789"


def check_refused(done, root, before: str | None, said: str) -> None:
    """Status 2, one sentence, and everything as it was."""
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("docker  ", "engine  "))]
    assert done.returncode == 2 and len(errors) == 1 and errors[0].startswith("error: "), done.stderr
    assert said in errors[0] and "Traceback" not in done.stderr
    assert not (root / "secrets").exists() and not (root / "monitoring/prometheus/targets/servers.yml").exists()
    assert ((root / ".env").read_text() if (root / ".env").exists() else None) == before


OLD = {"version": "20.10.24"}
MACHINES = [
    ("no docker", lambda machine: None, "there is no `docker` command here"),
    ("old engine", lambda machine: machine.have_docker(**OLD), "the Docker engine is 20.10.24; 25.0 or later is"),
    ("no compose", lambda machine: machine.have_docker(compose="exit 1"), "install the Compose plugin"),
    ("old compose", lambda machine: machine.have_docker(compose="echo 2.3.3"), "Docker Compose is 2.3.3"),
]


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in MACHINES], ids=[case[0] for case in MACHINES])
def test_a_machine_that_cannot(machine: FakeMachine, root, make, said):
    make(machine)
    check_refused(machine.run(root, "host.start.up", "--model", "demo"), root, None, said)


def test_gpus_that_the_engine_cannot_hand_on(machine, root):
    machine.have_docker(runtimes=())
    machine.have_gpus(GPU)
    check_refused(
        machine.run(root, "host.start.up"), root, None, "has no NVIDIA runtime; install the NVIDIA Container Tool"
    )


ON_GPUS = {"COMPOSE_FILE": "compose.yaml:compose.gpu-ids.yaml"}
SETTINGS = [
    (ON_GPUS | {"LINGBI_GPU_IDS": "0,7"}, "there is no GPU 7; here are: GPU 0: NVIDIA L4"),
    ({"LINGBI_VERSION": "latest"}, "LINGBI_VERSION='latest' in .env: give a version"),
    ({"LINGBI_API_KEY": "abc"}, "LINGBI_API_KEY in .env looks like a secret"),
    ({"LINGBI_MODEL": KEY}, "LINGBI_MODEL in .env looks like a secret"),
    ({"LINGBI_MODLE": "demo"}, "LINGBI_MODLE='demo' in .env: there is no such setting"),
    ({"LINGBI_DRAIN_TIMEOUT_S": "x"}, "LINGBI_DRAIN_TIMEOUT_S='x' in .env: give a whole number"),
    ({"LINGBI_WORKERS": "x"}, "LINGBI_WORKERS='x' in .env: give a whole number"),
    ({"LINGBI_GATEWAY_PORT": "x"}, "LINGBI_GATEWAY_PORT='x': give a whole number"),
    ({"LINGBI_SUBNET": "8.8.8"}, "LINGBI_SUBNET='8.8.8'"),
    (
        {"COMPOSE_FILE": "compose.yaml:compose.cup.yaml"},
        "compose.cup.yaml is not there; did you mean compose.cpu.yaml?",
    ),
    ({"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.logins.yaml"}, "make it with scripts/login add NAME"),
    ({"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.hub-token.yaml"}, "hub-token is not there; write the tok"),
    (
        {"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml", "LINGBI_DATABASE_URL": "postgresql://lingbi@10.0.0.5/lingbi"},
        "database-password is not there; write the password of LINGBI_DATABASE_URL there",
    ),
]


@pytest.mark.parametrize(("values", "said"), SETTINGS)
def test_settings_that_cannot_be(machine, root, env, values, said):
    machine.have_docker()
    machine.have_gpus(GPU)
    before = env(**values)
    check_refused(machine.run(root, "host.start.up", "--host", "127.0.0.1"), root, before, said)


def test_a_folder_that_is_missing(machine, root, env):
    machine.have_docker()
    before = env()
    check_refused(
        machine.run(root, "host.start.up", "--model", "./none"), root, before, "is no folder with an absolute path"
    )


@pytest.mark.parametrize("has_env", [True, False])
def test_a_port_that_is_taken(machine, root, env, has_env):
    machine.have_docker()
    before = env() if has_env else None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = machine.run(root, "host.start.up", "--port", port)
        check_refused(done, root, before, "Address already in use; end what uses it, or give --port")


RUNNING = {"running": "echo container", "published": "echo 127.0.0.1:6006"}


@pytest.mark.parametrize("state", [{}, RUNNING], ids=["stopped", "running"])
class TestWhatTheImagesRefuse:
    def test_a_model_that_does_not_fit(self, machine, root, env, state):
        machine.have_docker(doctor="echo 'FAIL  start      7b needs 17000 MiB'; exit 2", **state)
        before = env()
        check_refused(machine.run(root, "host.start.up", "--model", "7b"), root, before, "7b needs 17000 MiB")
        asked = next(call for call in machine.calls() if " doctor" in call)
        assert asked.endswith("--replacing") == bool(state)

    def test_what_the_gateway_does_not_take(self, machine, root, env, state):
        machine.have_docker(render="echo \"error: LINGBI_GATEWAY_TLS='on': give one\" >&2; exit 2", **state)
        before = env()
        check_refused(machine.run(root, "host.start.up"), root, before, "LINGBI_GATEWAY_TLS='on': give one")

    def test_a_port_of_another(self, machine, root, env, state):
        machine.have_docker(**state)
        before = env()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            check_refused(
                machine.run(root, "host.start.up", "--port", taken.getsockname()[1]), root, before, "already in use"
            )


@pytest.mark.parametrize(("address", "told"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]")])
def test_its_own_port_is_not_in_its_way(machine, root, env, address, told):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((address.strip("[]"), 0))
        taken.listen()
        port = taken.getsockname()[1]
        env(LINGBI_GATEWAY_PORT=port, LINGBI_PUBLISH_ADDRESS=address)
        machine.have_docker(running="true", published=f"echo '{told}:{port}'")
        done = machine.run(root, "host.start.up")
    assert done.returncode == 3 and "the containers would be started" in done.stderr, done.stderr


def test_what_is_right_is_written_and_closed(machine, root):
    machine.have_docker()
    done = machine.run(root, "host.start.up", "--port", free_port())
    assert done.returncode == 3 and "engine  cpu: no NVIDIA GPU is here" in done.stderr, done.stderr
    assert "docker  Docker 26.1.5, Compose 2.30.1" in done.stderr
    assert stat.S_IMODE((root / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize("has_env", [True, False])
def test_settings_of_the_shell_are_kept_in_env(machine, root, env, has_env):
    """As a native start takes them, but for those of an option, and those that containers have of their own."""
    machine.have_docker()
    if has_env:
        env()
    shell = {"LINGBI_ON_DEMAND": "true", "LINGBI_MODEL": "vl-7b", "LINGBI_PORT": "1", "LINGBI_IDLE_TIMEOUT": ""}
    named = ("--model", "demo", "--model", "/models/x")
    done = machine.run(root, "host.start.up", *named, "--port", free_port(), **shell)
    kept = parse((root / ".env").read_text())
    assert done.returncode == 3 and (kept["LINGBI_ON_DEMAND"], kept["LINGBI_MODEL"]) == ("true", "demo,/models/x")
    assert not {"LINGBI_PORT", "LINGBI_IDLE_TIMEOUT"} & kept.keys()
    before = (root / ".env").read_text()
    for value, said in (("false", "LINGBI_ON_DEMAND is 'false' in this shell and 'true' in .env"), ("true", "")):
        done = machine.run(root, "host.start.up", LINGBI_ON_DEMAND=value)
        assert done.returncode == (2 if said else 3) and said in done.stderr, done.stderr
        assert (root / ".env").read_text() == before


def test_a_typo_in_the_shell_is_named(machine, root):
    machine.have_docker()
    done = machine.run(root, "host.start.up", LINGBI_MODLE="demo")
    check_refused(
        done, root, None, "LINGBI_MODLE='demo' in this shell: there is no such setting; did you mean LINGBI_MODEL?"
    )


@pytest.mark.parametrize("told", [{"models": ["internlm-xcomposer2-demo", "mine"]}, {"model": "mine"}, None])
def test_several_models_are_named_as_the_servers_record_of_its_start_has_them(tmp_path, monkeypatch, told):
    """The command that is given to the server's container, where its state folder is another one."""

    def compose(*words, shown):
        assert words[:3] == ("exec", "--no-TTY", "server") and not shown
        environment = os.environ | {"LINGBI_STATE_DIR": str(tmp_path)}
        return subprocess.run(words[3:], env=environment, capture_output=True, text=True)

    monkeypatch.setattr(stack, "compose", compose)
    if told:
        record_file(tmp_path).parent.mkdir()
        record_file(tmp_path).write_text(json.dumps(told))
    assert stack.record() == (told or {})


class Ready(http.server.BaseHTTPRequestHandler):
    """A gateway whose server is ready."""

    def do_GET(self):  # noqa: N802 - the name http.server calls
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"model": "internlm-xcomposer2-vl-7b", "engine": "turbomind"}')

    def log_message(self, *message):
        """Nothing: it is asked once."""


def test_as_many_workers_are_watched_as_the_server_has_started(machine, root):
    """With LINGBI_TP=auto only the server knows how many there are."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        port = gateway.server_address[1]
        record, published = json.dumps({"ports": [23333]}), f"echo 127.0.0.1:{port}"
        machine.have_docker(up="true", record=f"echo '{record}'", published=published)
        machine.have_gpus(GPU, GPU.replace("0", "1"))
        done = machine.run(root, "host.start.up", "--port", port, LINGBI_TP="auto")
        gateway.shutdown()
    assert done.returncode == 0, done.stderr
    watched = json.loads((root / "monitoring/prometheus/targets/servers.yml").read_text())
    assert watched == [{"targets": ["172.30.76.200:23333"]}]


def test_what_other_users_of_containers_read_is_open_whatever_the_umask_is(tmp_path):
    mask = os.umask(0o077)
    try:
        write_targets(tmp_path / "targets/servers.yml", "[]\n")
        make_secrets(tmp_path / "secrets")
    finally:
        os.umask(mask)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"targets": 0o755, "targets/servers.yml": 0o644, "secrets": 0o700} | {
        f"secrets/{name}": 0o644 for name in SECRETS
    }


def test_a_folder_of_secrets_that_others_can_enter_is_closed(tmp_path):
    folder = tmp_path / "secrets"
    for seen, expected in ((0o755, 0o700), (0o711, 0o700), (0o750, 0o750)):
        folder.mkdir(exist_ok=True)
        folder.chmod(seen)
        make_secrets(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == expected
        # The containers' user reads what is mounted from there.
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in SECRETS} == {0o644}


def test_an_open_folder_of_somebody_else_is_refused_before_a_secret_is_in_it():
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        folder = Path(above, "secrets")
        folder.mkdir(mode=0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(Refusal) as caught:
                make_secrets(folder)
        finally:
            os.seteuid(0)
        assert str(caught.value).endswith(f"belongs to user 0; run: sudo chmod 700 {folder}")
        assert f"{folder} has mode 0755" in str(caught.value) and list(folder.iterdir()) == []


def test_an_older_env_without_a_port_gets_it(machine, root, env):
    env(without="LINGBI_GATEWAY_PORT")
    machine.have_docker(published="echo 127.0.0.1:6006")
    done = machine.run(root, "host.start.up")
    assert done.returncode == 3 and "LINGBI_GATEWAY_PORT=6006" in (root / ".env").read_text(), done.stderr


def test_an_override_follows_its_setting(machine, root, env, tmp_path):
    machine.have_docker()
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("")
    before = env(LINGBI_TLS_FOLDER=tmp_path)
    for text, files in (
        (before, "compose.yaml:compose.cpu.yaml:compose.tls.yaml"),
        (None, "compose.yaml:compose.cpu.yaml"),
    ):
        if text is None:  # the setting is removed, its file is still listed
            kept = (root / ".env").read_text().splitlines()
            (root / ".env").write_text("".join(f"{line}\n" for line in kept if "TLS_FOLDER" not in line))
        done = machine.run(root, "host.start.up")
        assert done.returncode == 3 and f"COMPOSE_FILE={files}\n" in (root / ".env").read_text(), done.stderr


def test_an_env_for_compose_alone_is_enough(machine, root):
    """Without COMPOSE_FILE, which those who use docker compose alone need not have."""
    machine.have_docker()
    (root / ".env").write_text(f"LINGBI_MODEL=demo\nLINGBI_GATEWAY_PORT={free_port()}\n")
    done = machine.run(root, "host.start.up")
    assert (
        done.returncode == 3 and "COMPOSE_FILE=compose.yaml:compose.cpu.yaml" in (root / ".env").read_text()
    ), done.stderr


def test_beside_a_native_server_it_does_not_start(machine, root, tmp_path):
    machine.have_docker()
    state = tmp_path / "state"
    (state / "run").mkdir(parents=True)
    command = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "supervisor.supervisord"]
    with subprocess.Popen(command, env=os.environ) as native:
        (state / "run/supervisord.pid").write_text(str(native.pid))
        try:
            done = machine.run(root, "host.start.up", LINGBI_STATE_DIR=str(state))
            check_refused(done, root, None, "lingbi runs natively here; end it first (scripts/down)")
        finally:
            native.kill()
    choice = machine.run(root, "host.start.choice", LINGBI_STATE_DIR=str(state))
    assert choice.returncode == 0 and "Docker: a usable engine is here" in choice.stderr  # its file is stale now


@pytest.mark.parametrize(
    ("module", "arguments"), [("host.bundle.make", ("--to", "x.tar")), ("host.images.digests", ())]
)
def test_without_docker_other_commands_say_so(machine, root, module, arguments):
    done = machine.run(root, module, *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "there is no `docker` command here" in done.stderr
