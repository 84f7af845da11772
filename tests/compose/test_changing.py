"""What an operator changes on a running stack is judged, and brought, before anything that runs is replaced."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from host.env_file import changed
from lingbi.launch.supervision import wait_until
from tests.compose.conftest import AT_THE_HUB, SERVICES, copy_repository, new_stack
from tests.compose.test_stack import block, smoke
from tests.conftest import ROOT, answers
from tests.containers.images import docker, inspect
from tests.containers.subnets import free_subnet
from tests.weights.conftest import MIB, MODEL, make_model

OTHER = "lab/other"


@pytest.fixture(scope="module")
def running(all_images, hub, tmp_path_factory):
    """A stack with a model from the local hub, which has another one too."""
    make_model(hub.root / OTHER, 3 * MIB)
    root = copy_repository(tmp_path_factory.mktemp("changing"))
    (root / "compose.hub.yaml").write_text(AT_THE_HUB)
    values = {"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.hub.yaml", "LINGBI_MODEL": MODEL}
    values |= {"LINGBI_HUB_ENDPOINT": hub.url, "LINGBI_FETCH_PATIENCE_S": 3, "LINGBI_GATEWAY_SERVERS": ""}
    with new_stack(root, **values) as stack:
        done = stack.compose("up", "--wait", check=False)
        assert done.returncode == 0, done.stderr + stack.compose("logs").stdout
        yield stack


def containers(stack) -> list:
    return [stack.container(service) for service in SERVICES[1:]]


@contextmanager
def untouched(stack):
    """What is done meanwhile leaves .env as it is, and all containers running and answering."""
    before, env = containers(stack), (stack.root / ".env").read_text()
    yield
    assert containers(stack) == before and (stack.root / ".env").read_text() == env
    assert answers(f"{stack.url}/ready") and answers(f"{stack.url}/")


@contextmanager
def env_with(stack, **values):
    """.env with these values, and without them again."""
    file = stack.root / ".env"
    before = file.read_text()
    file.write_text(changed(before, values))
    try:
        yield
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("name", "value"), [("LINGBI_MODLE", "demo"), ("LINGBI_GATEWAY_PROT", "6006"), ("LINGBI_UI_MAX_PICTURES", "many")]
)
def test_the_documented_line_names_a_typo_beside_what_runs(running, name, value):
    line = block("operations.md", "Changing settings").splitlines()[0]
    assert line.split("#")[0].strip() == "docker compose run --rm weights && docker compose up --wait"
    with env_with(running, **{name: value}), untouched(running):
        done = subprocess.run(["bash", "-c", line], cwd=running.root, capture_output=True, text=True)
        assert done.returncode == 2 and f"{name}='{value}': " in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_model_that_does_not_come_changes_nothing(running, hub):
    hub.faults.is_gone = True
    try:
        with untouched(running):
            done = running.up("--model", OTHER)
    finally:
        hub.faults.is_gone = False
    assert done.returncode == 2 and "nothing was changed, and what ran goes on" in done.stderr, done.stderr
    assert "no new byte has arrived" in done.stderr


def test_ending_it_while_the_weights_come_leaves_what_ran(running, hub):
    hub.requests.clear()
    hub.faults.rate = 100_000
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
    try:
        with untouched(running):
            process = subprocess.Popen(
                [sys.executable, "-m", "host.start.up", "--model", OTHER],
                cwd=running.root,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
            assert wait_until(lambda: hub.paths("extra.dat") or process.poll() is not None, 60)
            assert answers(f"{running.url}/ready")
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends Ctrl-C
            assert process.wait(30) == 130
            assert "interrupted: nothing was changed, and what ran goes on" in process.stderr.read()
    finally:
        hub.faults.rate = 0
    label = f"--filter=label=com.docker.compose.project={running.project}"
    names = "--format={{.Names}}"
    assert wait_until(lambda: docker("ps", names, label).stdout.count("\n") == 3, 30), docker("ps", names, label).stdout


def test_another_model_takes_the_place_when_its_weights_are_there(running, hub, tmp_path):
    done = running.up("--model", OTHER)
    assert done.returncode == 0, done.stderr
    told = done.stderr
    assert told.index("weights the weights are there") < told.index("Recreate"), told
    assert f"LINGBI_MODEL={OTHER}" in (running.root / ".env").read_text() and smoke(running, tmp_path).returncode == 0


def test_a_subnet_of_another_network_is_refused(running):
    with env_with(running, LINGBI_SUBNET="172.17.5"), untouched(running):
        done = running.up()
        assert done.returncode == 2 and "of Docker's network bridge; free is LINGBI_SUBNET=" in done.stderr, done.stderr


def test_another_subnet_makes_the_networks_anew(running):
    key, subnet = running.key, free_subnet()
    (running.root / ".env").write_text(changed((running.root / ".env").read_text(), {"LINGBI_SUBNET": subnet}))
    done = running.up()
    assert done.returncode == 0 and f"network {running.project}_edge, " in done.stderr, done.stderr
    for name, held in (
        ("edge", f"{subnet}.64/26"),
        ("inside", f"{subnet}.128/25"),
    ):  # the test's hub needs no `outside`
        found = docker("network", "inspect", f"{running.project}_{name}", "--format={{(index .IPAM.Config 0).Subnet}}")
        assert found.stdout.strip() == held
    models = httpx.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert models.status_code == 200


def test_a_key_that_is_cut_off_is_named_before_anything_is_replaced(running):
    server = running.container("server")
    docker("exec", server, "sh", "-c", "cp -p api-key whole; printf lb-abc >api-key")
    try:
        with untouched(running):
            done = running.up()
            assert done.returncode == 2 and "key file /var/lib/lingbi/api-key is cut off" in done.stderr, done.stderr
    finally:
        docker("exec", server, "sh", "-c", "cat whole >api-key; rm whole")


def test_after_a_kill_the_documented_line_brings_it_back(running):
    lines = block("operations.md", "When something was killed").splitlines()
    [line] = [line.split("#")[0].strip() for line in lines if line.startswith("docker compose up")]
    running.compose("kill")
    assert not inspect(running.container("server"))["State"]["Running"]
    done = subprocess.run(["bash", "-c", line], cwd=running.root, capture_output=True, text=True)
    assert done.returncode == 0 and answers(f"{running.url}/ready") and answers(f"{running.url}/"), done.stderr
    assert (ROOT / "docs/operations.zh-CN.md").read_text().count(line) >= 1
