"""scripts/up for another model, natively, while one serves: the weights come first, and then the other takes its place."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest

from lingbi.launch.supervision import Supervisor, wait_until
from tests.conftest import answers, clean_environment, free_port, lingbi, running_server
from tests.weights.conftest import MODEL, small_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A server alone with the demo model; its options for another model are `again`."""
    state_dir = tmp_path_factory.mktemp("replacing") / "state"
    with running_server(state_dir, "--model", "demo", "--engine", "cpu") as report:
        process = Supervisor(state_dir).process()
        again = ["--json", "--server-only", "--engine", "cpu", "--port", str(report["port"])]
        ports = {f"LINGBI_{name}PORT": str(free_port()) for name in ("", "UI_", "GATEWAY_", "GATEWAY_INNER_")}
        yield report | {"state_dir": state_dir, "process": process, "again": again, "ports": ports}


def settings(one, hub, **more) -> dict:
    models = {"LINGBI_MODELS_DIR": str(one["state_dir"].parent / "models")}
    return one["ports"] | models | {"LINGBI_HUB_ENDPOINT": hub.url} | more


def up(one, hub, *arguments, **more):
    return lingbi("up", *one["again"], *arguments, state_dir=one["state_dir"], **settings(one, hub, **more))


def goes_on(one) -> bool:
    return answers(f"{one['url']}/ready") and Supervisor(one["state_dir"]).process() == one["process"]


def test_what_cannot_be_is_refused_and_the_former_goes_on(one, hub):
    for arguments, said in (
        (("--model", "lab/none"), "has no lab/none at master (404)"),
        (("--model", "./none"), "none"),
        (("--model", MODEL, "--port", str(other_port(one))), "cannot listen on"),
    ):
        done = up(one, hub, *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert goes_on(one)


def other_port(one) -> int:
    """A port that another program holds for as long as the tests run."""
    one["taken"] = socket.socket()
    one["taken"].bind(("127.0.0.1", 0))
    one["taken"].listen()
    return one["taken"].getsockname()[1]


def test_a_hub_out_of_reach_ends_nothing(one, hub):
    hub.faults.is_gone = True
    try:
        done = up(one, hub, "--model", MODEL, LINGBI_FETCH_PATIENCE_S="1")
    finally:
        hub.faults.is_gone = False
    assert done.returncode == 3 and "what ran goes on\nerror: " in done.stderr, done.stderr
    assert "no new byte has arrived" in done.stderr and goes_on(one)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ending_it_while_the_weights_come_ends_nothing_else(one, hub, number):
    hub.faults.rate = 100_000
    command = [sys.executable, "-m", "lingbi.launch.up", *one["again"], "--model", MODEL]
    values = clean_environment(one["state_dir"]) | settings(one, hub)
    hub.requests.clear()
    process = subprocess.Popen(
        command,
        env=values,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a suite in the background inherits "ignore"
    )
    try:
        assert wait_until(lambda: hub.paths("extra.dat"), 60)
        assert goes_on(one)
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert "interrupted; what ran goes on; progress is kept" in process.stderr.read() and goes_on(one)
    finally:
        process.kill()
        hub.faults.rate = 0


def test_the_other_model_takes_the_place_once_its_weights_are_there(one, hub):
    done = up(one, hub, "--model", MODEL)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    ended = next(number for number, line in enumerate(said) if line.startswith("weights are there; ending what runs"))
    assert "scripts/up --server-only --port" in said[ended] and "--model demo" in said[ended]
    assert httpx.get(f"{one['url']}/ready").json()["status"] == "ready"
    assert Supervisor(one["state_dir"]).process() != one["process"] and not one["process"].is_running()
    again = up(one, hub, "--model", MODEL)
    assert again.returncode == 2 and "already up" in again.stderr, again.stderr
