"""A native installation under systemd: over a reboot, as another user, and what the unit runs without systemd too."""

import json
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lingbi.launch.supervision import Supervisor, wait_until
from lingbi.launch.systemd import unit as unit_file
from lingbi.launch.systemd.decision import decide
from lingbi.launch.up import parse, settings_of
from tests.client import CHAT, SCENES, fault, http, question
from tests.conftest import answers, clean_environment, free_port, lingbi
from tests.system.machine import Machine, have_systemd

LONG = {"max_tokens": 3000, "ignore_eos": True, "stream": True}
DRAIN_S = 30
MODEL = "internlm-xcomposer2-demo"


def ports() -> dict:
    return {f"LINGBI_{name}PORT": str(free_port()) for name in ("", "UI_", "GATEWAY_", "GATEWAY_INNER_")}


def asked(server: dict) -> str | None:
    """What is wrong with its answer about a picture."""
    with http(server) as client:
        return fault(SCENES[0], client.post(CHAT, json=question(server, SCENES[0])))


def stream(server: dict, while_running) -> list:
    """The events of a long answer during which something is done."""
    with http(server) as client, client.stream("POST", CHAT, json=question(server, SCENES[0], **LONG)) as response:
        lines = response.iter_lines()
        next(lines)
        while_running()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data:")]


def is_whole(events: list) -> bool:
    return events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


@pytest.fixture(scope="module", autouse=True)
def systemd():
    have_systemd()


@pytest.fixture
def machine(tmp_path):
    found = Machine(tmp_path)
    found.boot()
    yield found
    found.off()


def test_a_service_drains_at_a_shutdown_and_is_back_after_the_boot(machine):
    values = {"LINGBI_STATE_DIR": machine.state_dir, "LINGBI_DRAIN_TIMEOUT_S": DRAIN_S, **ports()}
    values["LINGBI_MODELS_DIR"] = machine.state_dir / "models"
    done = machine.service("install", "--model", "demo", "--engine", "cpu", **values)
    assert done.returncode == 0, done.stdout + done.stderr
    url = f"http://127.0.0.1:{values['LINGBI_GATEWAY_PORT']}"
    server = {"url": url, "key": (machine.state_dir / "api-key").read_text().strip(), "model": MODEL}
    assert url in done.stdout and asked(server) is None
    supervisor = Supervisor(machine.state_dir)
    [worker] = supervisor.workers_left()
    assert worker.uids().real == 4321  # whose state folder it is, though root installed it
    limits = Path(f"/proc/{worker.pid}/limits").read_text().splitlines()
    [limit] = [line.split() for line in limits if line.startswith("Max open files")]
    assert int(limit[4]) == min(unit_file.OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

    refused = machine.run(sys.executable, "-m", "lingbi.launch.up", "--model", "demo", **values)
    assert refused.returncode == 2 and "lingbi is the service lingbi.service here" in refused.stderr
    again = machine.service("install", "--model", "demo", **values)
    assert again.returncode == 2 and "lingbi.service runs; scripts/service stop" in again.stderr
    other = machine.service("install", "--model", "demo", **values | {"LINGBI_STATE_DIR": "/tmp/other"})
    assert other.returncode == 2 and f"runs {machine.state_dir}; give this one another name" in other.stderr

    def shut_down():
        machine.systemctl("reboot")

    start = time.monotonic()
    assert is_whole(stream(server, shut_down))
    machine.process.wait(DRAIN_S + 40)
    assert time.monotonic() - start < DRAIN_S + 40
    machine.boot()
    assert wait_until(lambda: answers(f"{url}/ready"), 120)
    assert wait_until(lambda: asked(server) is None, 30)  # the same key
    said = machine.service("status", **values)
    assert said.returncode == 0 and "active (running) since" in said.stdout and url in said.stdout, said.stdout

    pid = int(machine.systemctl("show", "lingbi", "--property=MainPID", "--value").stdout)
    machine.run("kill", "-KILL", pid)  # what runs on without its supervisor is ended, and all of it comes back
    assert wait_until(lambda: not answers(f"{url}/ready"), 10) and wait_until(lambda: answers(f"{url}/ready"), 120)
    assert "restarts 1, the last end" in machine.service("status", **values).stdout

    down = machine.run(sys.executable, "-m", "lingbi.launch.down", **values)
    assert down.returncode == 0 and "scripts/service remove ends that" in down.stdout, down.stderr
    assert not answers(f"{url}/ready") and machine.service("status", **values).returncode == 1
    assert machine.service("remove", **values).returncode == 0
    assert list((machine.kept / "units").glob("lingbi*")) == [] and supervisor.process() is None
    assert machine.service("status", **values).returncode == 2


def test_an_ordinary_user_has_a_unit_of_their_own(machine):
    values = {"LINGBI_STATE_DIR": machine.state_dir, "LINGBI_MODELS_DIR": machine.state_dir / "models", **ports()}
    install = ("install", "--model", "demo", "--engine", "cpu", "--server-only", "--name", "lingbi-mine")
    refused = machine.service(*install, user="lab", **values)
    assert refused.returncode == 2 and "sudo scripts/service install" in refused.stderr
    assert machine.run("loginctl", "enable-linger", "lab").returncode == 0
    values["XDG_RUNTIME_DIR"] = "/run/user/4321"
    assert wait_until(lambda: machine.systemctl("is-active", "user@4321").stdout.strip() == "active", 30)
    done = machine.service(*install, user="lab", **values)
    assert done.returncode == 0 and "sudo loginctl enable-linger lab" in done.stdout, done.stderr
    url = f"http://127.0.0.1:{values['LINGBI_PORT']}"
    stop = machine.service("stop", user="lab", **values)
    assert stop.returncode == 0 and not answers(f"{url}/ready"), stop.stderr
    assert machine.service("start", user="lab", **values).returncode == 0
    assert wait_until(lambda: answers(f"{url}/ready"), 120)
    assert machine.service("remove", user="lab", **values).returncode == 0 and not answers(f"{url}/ready")


def test_a_start_that_fails_leaves_no_unit(machine):
    values = {"LINGBI_STATE_DIR": machine.state_dir, **ports()}
    (machine.kept / "state/no-model").mkdir()
    (machine.kept / "state/no-model/config.json").write_text("{}")
    done = machine.service("install", "--model", machine.kept / "state/no-model", "--engine", "cpu", **values)
    assert done.returncode != 0 and list((machine.kept / "units").glob("lingbi*")) == [], done.stderr
    busy = machine.service("install", "--model", "demo", "--engine", "cpu", **values | {"LINGBI_PORT": "1"})
    assert busy.returncode == 2 and "as user lab" in busy.stderr and "port 1" in busy.stderr
    assert list((machine.kept / "units").glob("lingbi*")) == []


def test_without_systemd_nothing_is_changed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lingbi.launch.service", "install", "--model", "demo"],
        env=clean_environment(tmp_path / "state"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "does not run systemd" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def read_unit(text: str) -> dict:
    """{key: [values]} of the unit's [Service], with systemd's quoting undone."""
    lines = text.split("[Service]\n")[1].split("\n\n")[0].splitlines()
    found: dict = {}
    for line in lines:
        key, value = line.split("=", 1)
        found.setdefault(key, []).append(value.replace("%%", "%"))
    return found


def start_as(found: dict, log) -> subprocess.Popen:
    """What the unit runs, as systemd would: nothing but its environment, its folder and its limits."""
    environment = dict(shlex.split(value)[0].split("=", 1) for value in found["Environment"])
    files = min(int(found["LimitNOFILE"][0]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # no more than a user may
    return subprocess.Popen(
        shlex.split(found["ExecStart"][0]),
        env=environment,
        cwd=found["WorkingDirectory"][0],
        stdin=subprocess.DEVNULL,
        stdout=log.open("a"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
    )


def test_what_the_unit_runs_comes_up_drains_and_starts_again(tmp_path, monkeypatch):
    values = clean_environment(tmp_path / "state") | {"LINGBI_DRAIN_TIMEOUT_S": str(DRAIN_S)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    options = parse(["--model", "demo", "--engine", "cpu"])
    options.name = "lingbi"
    found = read_unit(unit_file.text(decide(options, settings_of(options), is_system=False)))
    log, bound_s = tmp_path / "journal", int(found["TimeoutStopSec"][0])
    url = f"http://127.0.0.1:{values['LINGBI_GATEWAY_PORT']}"
    for _ in range(2):
        process = start_as(found, log)
        try:
            assert wait_until(lambda started=process: started.poll() is not None or answers(f"{url}/ready"), 120)
            assert process.poll() is None, log.read_text()
            up = lingbi("up", "--model", "demo", state_dir=tmp_path / "state")
            assert up.returncode == 2 and f"already up: {url}" in up.stderr
            server = {"url": url, "key": (tmp_path / "state/api-key").read_text().strip(), "model": MODEL}
            assert asked(server) is None
            start = time.monotonic()
            assert is_whole(stream(server, process.terminate))
            assert process.wait(bound_s) == 0 and time.monotonic() - start < bound_s
            assert Supervisor(tmp_path / "state").left() == []
        finally:
            process.terminate()
            process.wait(bound_s)
    assert lingbi("down", state_dir=tmp_path / "state").stdout == "lingbi was not up.\n"
