"""scripts/up on a machine where something is already: its own stack, others' networks and stacks, cards of all kinds."""

import json
import socket

import pytest

from tests.conftest import free_port
from tests.host.start.test_up import GPU, RUNNING, check_refused


@pytest.mark.parametrize("ids", [None, "0"])
def test_gpus_that_are_named_and_the_engine_cannot_hand_on(machine, root, env, ids):
    machine.have_docker(runtimes=(), running="echo container")
    machine.have_gpus(GPU)
    named = {"LINGBI_GPU_IDS": ids} if ids else {}
    before = env(COMPOSE_FILE="compose.yaml" + (":compose.gpu-ids.yaml" if ids else ""), **named)
    check_refused(
        machine.run(root, "host.start.up"), root, before, "has no NVIDIA runtime; install the NVIDIA Container Tool"
    )


def test_a_card_without_code_for_it_is_refused_before_anything_is_built(machine, root, env):
    machine.have_docker()
    machine.have_gpus("GPU 0: NVIDIA P40 (UUID: GPU-a)", "GPU 1: NVIDIA L4 (UUID: GPU-b)", capabilities=("6.1", "8.9"))
    done = machine.run(root, "host.start.up")
    check_refused(
        done, root, None, "GPU 0: NVIDIA P40 (UUID: GPU-a) has compute capability 6.1, and TurboMind of LMDeploy"
    )
    env(COMPOSE_FILE="compose.yaml:compose.gpu-ids.yaml", LINGBI_GPU_IDS="1")
    assert machine.run(root, "host.start.up").returncode == 3
    assert not any(call.startswith(("build", "pull")) for call in machine.calls())


def test_the_port_of_a_stack_that_compose_alone_started_is_not_in_its_way(machine, root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        machine.have_docker(running="true", published=f"echo '127.0.0.1:{port}'")
        done = machine.run(root, "host.start.up", "--port", port)
    assert done.returncode == 3 and "the containers would be started" in done.stderr, done.stderr


NETWORK = {"Id": "ab" * 32, "Options": {}, "IPAM": {"Config": [{"Subnet": "10.213.0.0/16"}]}}


def network(name: str, project: str) -> dict:
    return NETWORK | {"Name": name, "Labels": {"com.docker.compose.project": project}}


def test_a_subnet_that_another_network_has_is_refused_with_a_free_one(machine, root, env):
    machine.have_docker()
    machine.have_networks(network("shop_default", "shop"))
    before = env()
    done = machine.run(root, "host.start.up")
    check_refused(
        done, root, before, "overlaps with 10.213.0.0/16 of Docker's network shop_default (project shop); free is"
    )


@pytest.mark.parametrize(("others", "status"), [("true", 3), ("echo agent agents", 2)])
def test_another_subnet_makes_the_networks_anew_unless_others_hold_them(machine, root, env, others, status):
    before = env()
    machine.have_docker(others=f'case "$*" in *network=*) {others} ;; esac')
    machine.have_networks(network("lingbi-test-fake_inside", "lingbi-test-fake"))
    config = json.loads((machine.folder / "config").read_text())
    config["networks"]["inside"]["ipam"] = {"config": [{"subnet": "10.213.13.128/25"}]}
    (machine.folder / "config").write_text(json.dumps(config))
    done = machine.run(root, "host.start.up")
    downs = [call for call in machine.calls() if " down " in call]
    assert done.returncode == status, done.stderr
    if status == 2:
        check_refused(done, root, before, "and agent is attached; end it first (docker stop agent)")
    assert len(downs) == (status == 3) and all("--volumes" not in call for call in downs)


def test_another_folders_stack_is_left_alone(machine, root, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    machine.have_docker(others=f"echo {first}")
    check_refused(
        machine.run(root, "host.start.up"), root, None, f"the stack `lingbi` of {first} runs here. For a second one"
    )


class TestWeightsBesideWhatRuns:
    def test_they_come_before_anything_is_changed(self, machine, root, env):
        before = env()
        machine.have_docker(weights="echo '{\"message\": \"1 of 2 GB\"}'; echo 'error: no hub' >&2; exit 3", **RUNNING)
        done = machine.run(root, "host.start.up", "--model", "vl-7b", "--port", free_port())
        assert done.returncode == 2 and "weights 1 of 2 GB\n" in done.stderr, done.stderr
        assert "error: no hub; nothing was changed, and what ran goes on" in done.stderr
        assert (root / ".env").read_text() == before and not any(" up " in call for call in machine.calls())

    def test_they_are_judged_first_and_what_runs_is_replaced_last(self, machine, root, env):
        env()
        machine.have_docker(**RUNNING)
        assert machine.run(root, "host.start.up", "--model", "vl-7b", "--port", free_port()).returncode == 3
        steps = [" doctor ", " run --rm --no-deps --no-TTY weights", " up --detach"]
        turns = [next(turn for turn, call in enumerate(machine.calls()) if step in f"{call} ") for step in steps]
        assert turns == sorted(turns) and "LINGBI_MODEL=vl-7b" in (root / ".env").read_text()

    def test_ending_it_meanwhile_changes_nothing(self, machine, root, env):
        before = env()
        machine.have_docker(weights="exit 130", **RUNNING)
        done = machine.run(root, "host.start.up", "--model", "vl-7b", "--port", free_port())
        assert done.returncode == 130 and "interrupted: nothing was changed, and what ran goes on" in done.stderr
        assert (root / ".env").read_text() == before and not any(" up " in call for call in machine.calls())

    def test_where_no_server_runs_they_come_with_the_stack(self, machine, root, env):
        env()
        machine.have_docker()
        assert machine.run(root, "host.start.up").returncode == 3
        assert not any(" run --rm --no-deps " in call for call in machine.calls())
