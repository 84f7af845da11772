"""docker compose brings all up, answers by content, and comes back right from whatever happens to it."""

import json
import os
import re
import stat
import subprocess
import threading

import httpx
import pytest

from host.env_file import changed, parse
from lingbi.launch.supervision import wait_until
from tests.browser.conftest import Visitor, chromium  # noqa: F401 - a fixture
from tests.compose.conftest import SERVICES
from tests.conftest import ROOT, answers, lingbi
from tests.containers import images
from tests.containers.images import docker, inspect, worrying
from tests.images.conftest import EXPECTED, health, logs
from tests.weights.conftest import MODEL

LONG_ANSWER = {"ignore_eos": True, "max_tokens": 3000, "stream": True}
FRONT_EXPECTED = {
    r"\[warn\].*buffered to a temporary file": "large pictures wait in the gateway's temporary folder",
    r"\[error\].*(connect\(\) failed|prematurely closed|timed out)": "the server was killed by these tests",
    r"\[warn\].*upstream server temporarily disabled": "the server was killed by these tests",
}


def smoke(stack, tmp_path):
    (tmp_path / "api-key").write_text(stack.key)
    return lingbi("smoke", stack.url, "--api-key-file", tmp_path / "api-key", state_dir=tmp_path / "state")


def wait_answers(stack, timeout_s: float = 120) -> None:
    assert wait_until(lambda: answers(f"{stack.url}/ready") and answers(f"{stack.url}/"), timeout_s), stack.compose(
        "logs"
    ).stdout


def test_it_answers_by_content_through_the_gateway(stack, tmp_path):
    done = smoke(stack, tmp_path)
    assert done.returncode == 0 and "FAIL" not in done.stderr, done.stderr


def test_the_page_knows_the_model(stack):
    assert json.loads(httpx.get(f"{stack.url}/state").text)["phase"] == "ready"


def test_the_page_answers_in_a_browser(stack, chromium):  # noqa: F811
    visitor = Visitor(chromium, stack.url).come()
    visitor.ask("What colour is it?", stack.root / "docs/red-circle.png")
    visitor.sees("red")
    visitor.leave()
    assert visitor.faults == [] and visitor.elsewhere == []


def test_secrets_are_files_that_only_containers_and_root_reach(stack):
    assert stat.S_IMODE(os.stat(stack.root / "secrets").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(stack.root / ".env").st_mode) == 0o600
    assert stack.key not in (stack.root / ".env").read_text()
    for service in ("server", "ui", "gateway"):
        assert stack.key not in json.dumps(inspect(stack.container(service)))


def test_only_the_gateway_is_published_and_on_loopback(stack):
    published = {
        service: inspect(stack.container(service))["NetworkSettings"]["Ports"]
        for service in ("server", "ui", "gateway")
    }
    assert not any(any(ports.values()) for service, ports in published.items() if service != "gateway")
    [[binding]] = [item for item in published["gateway"].values() if item]
    assert binding == {"HostIp": "127.0.0.1", "HostPort": str(stack.port)}


def test_containers_have_no_rights_and_the_server_no_way_out(stack):
    for service in ("server", "ui", "gateway", "weights"):
        host = inspect(stack.container(service))["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and "no-new-privileges:true" in host["SecurityOpt"]
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}
    code = "import socket; socket.create_connection(('1.1.1.1', 53), 3)"
    for service in ("server", "ui"):
        done = docker("exec", stack.container(service), "python", "-c", code, check=False)
        assert done.returncode == 1 and "Network is unreachable" in done.stderr, done.stderr
        routes = docker("exec", stack.container(service), "cat", "/proc/net/route").stdout.splitlines()[1:]
        assert routes and all(route.split()[1] != "00000000" for route in routes), routes  # none is the default


def ask_long(stack, events: list) -> None:
    """Collect the events of a long answer, streamed through the gateway."""
    headers = {"Authorization": f"Bearer {stack.key}"}
    model = httpx.get(f"{stack.url}/v1/models", headers=headers).json()["data"][0]["id"]
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]} | LONG_ANSWER
    url = f"{stack.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=120) as answer:
        for line in answer.iter_lines():
            events.extend([line] if line.startswith("data: ") else [])


def test_an_answer_outlives_down_and_a_second_up_makes_no_request_to_the_hub(stack, hub):
    hub.requests.clear()
    events = []
    asking = threading.Thread(target=ask_long, args=(stack, events))
    asking.start()
    assert wait_until(lambda: events, 20)
    stack.compose("down")
    asking.join()
    assert events and events[-1] == "data: [DONE]", events[-2:]
    done = stack.up()
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    wait_answers(stack)


def test_a_restart(stack, tmp_path):
    stack.compose("restart")
    wait_answers(stack)
    assert smoke(stack, tmp_path).returncode == 0


@pytest.mark.parametrize("service", ["server", "ui", "gateway"])
def test_a_killed_service_comes_back(stack, service):
    """The process dies, as by the kernel's hand; `docker kill` would count as the operator's wish."""
    name = stack.container(service)
    before = inspect(name)["RestartCount"]
    os.kill(inspect(name)["State"]["Pid"], 9)
    assert wait_until(lambda: inspect(name)["RestartCount"] == before + 1 and health(name) == "healthy", 120), logs(
        name
    )
    wait_answers(stack)


def test_all_killed_at_once_come_back(stack, tmp_path):
    for service in ("server", "ui", "gateway"):
        os.kill(inspect(stack.container(service))["State"]["Pid"], 9)
    wait_until(lambda: not answers(f"{stack.url}/ready"), 5)
    wait_answers(stack)
    assert smoke(stack, tmp_path).returncode == 0


def block(file: str, heading: str) -> str:
    """The commands under a heading of a document."""
    return (ROOT / "docs" / file).read_text().split(f"\n## {heading}\n")[1].split("```bash\n")[1].split("```")[0]


def test_keys_are_added_while_it_runs_and_come_back_from_the_documented_backup(stack):
    made = stack.compose("exec", "-T", "server", "lingbi", "key", "add", "alice").stdout.strip()
    headers = {"Authorization": f"Bearer {made}"}

    def status() -> int:
        return httpx.get(f"{stack.url}/v1/models", headers=headers).status_code

    assert wait_until(lambda: status() == 200, 10)
    commands = [
        block("operations.md", heading).splitlines()[0].split("#")[0].strip() for heading in ("Backup", "Restore")
    ]
    assert commands == ["scripts/backup lingbi-backup.tar", "scripts/restore lingbi-backup.tar"]
    remove = "docker compose exec -T server lingbi key remove alice"
    restore = f"scripts/down && {commands[1]} --force && scripts/up --docker"
    for command, expected in ((f"{commands[0]} && {remove}", 401), (restore, 200)):
        done = subprocess.run(["bash", "-euxc", command], cwd=stack.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert wait_until(lambda expected=expected: status() == expected, 10)


@pytest.fixture(scope="module")
def again(stack):
    """scripts/up once more, as people type it."""
    before = [stack.container(service) for service in SERVICES[1:]]
    done = stack.script("up", "--docker")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  model    \S+ on cpu$", done.stdout, re.M), done.stdout
    assert [stack.container(service) for service in SERVICES[1:]] == before
    return done


def test_scripts_find_the_containers_and_install_nothing(stack, again):
    assert f"{stack.url}/v1" in again.stdout and "Docker: asked for by --docker" in again.stderr
    assert "engine  cpu: no NVIDIA GPU is here" in again.stderr
    done = stack.script("smoke")
    assert done.returncode == 0 and "0 failed" in done.stdout, done.stderr
    assert "default" in stack.script("key", "list").stdout
    assert not (stack.root / ".venv").exists()


def test_the_printed_lines_work_when_pasted(stack, again):
    lines = again.stdout[again.stdout.index("URL=") : again.stdout.index("scripts/smoke checks")]
    done = subprocess.run(["bash", "-c", lines], cwd=stack.root, capture_output=True, text=True)
    assert "红色的圆形" in json.loads(done.stdout)["choices"][0]["message"]["content"], done.stdout + done.stderr


def documented(file: str, heading: str) -> str:
    """The commands under a heading, with the tests' own image, model and pictures."""
    commands = block(file, heading)
    version = (ROOT / "VERSION").read_text().strip()
    known = {f"lingbi/server:{version}": images.tag("server"), "vl-7b": MODEL, "$PWD/photos": "$PWD/docs"}
    for name, own in known.items():
        assert name in commands, f"{name} is not in\n{commands}"
        commands = commands.replace(name, own)
    return commands


def test_the_documented_commands_work_beside_what_runs(stack):
    commands, chinese = (
        re.sub(r"\s+#.*", "", documented(*where))
        for where in (("containers.md", "The images' commands"), ("containers.zh-CN.md", "镜像里的命令"))
    )
    assert commands == chinese
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
    done = subprocess.run(
        ["bash", "-euxc", commands], cwd=stack.root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "红色的圆形" in done.stdout and "TorchVision" in done.stdout, (
        done.stdout + done.stderr
    )
    wait_answers(stack)


def test_logs_hold_nothing_unexpected(stack):
    for service in ("weights", "server", "ui", "gateway"):
        assert worrying(logs(stack.container(service)), EXPECTED | FRONT_EXPECTED) == [], service


def test_a_crash_loop_ends_scripts_up_with_the_logs(stack):
    """Last of those that need the server: its container ends at once, again and again."""
    (stack.root / "compose.crash.yaml").write_text("services: {server: {command: [strat]}}\n")
    files = parse((stack.root / ".env").read_text())["COMPOSE_FILE"]
    env = (stack.root / ".env").read_text()
    (stack.root / ".env").write_text(changed(env, {"COMPOSE_FILE": f"{files}:compose.crash.yaml"}))
    try:
        done = stack.up()
    finally:
        (stack.root / ".env").write_text(env)
    assert done.returncode == 3 and re.search(r"server ended [3-9] times", done.stderr), done.stderr
    for said in ("there is no command 'strat'", "\nserver-1   |", "\nweights-1  |"):
        assert said in done.stderr, done.stderr


def test_the_first_start_says_nothing_unexpected(stack):
    for service, log in stack.first_logs.items():
        assert log and worrying(log, EXPECTED | FRONT_EXPECTED) == [], service
