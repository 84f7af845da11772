"""scripts/lab status from the inventory to its exit status, on a host that is this machine, with a worker that answers."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
import yaml

from tests.ansible import variables
from tests.ansible.plugins import load

status = load("library/unit_status.py")
DOCKER = """#!/bin/sh
case "$*" in
    ps*lingbi-server*) printf 'c1\\trunning\\tUp 1 hour (healthy)\\tserver\\n' ;;
    ps*lingbi-gateway*) printf 'c2\\trunning\\tUp 1 hour (healthy)\\tgateway\\nc3\\trunning\\tUp 1 hour\\tui\\n' ;;
    inspect*) echo 1.0.0 ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


def test_the_workers_are_those_of_the_env_file():
    text = "A=1\nLINGBI_SERVER_ADDRESS=10.0.0.1\nLINGBI_SERVER_PORTS='23333-23335'\n"
    assert status.server.endpoints(text) == [f"10.0.0.1:{port}" for port in (23333, 23334, 23335)]
    assert status.server.endpoints(text.replace("-23335", "")) == ["10.0.0.1:23333"]
    assert status.server.endpoints("") == []


@pytest.fixture
def worker():
    """A worker whose /ready says .phase, with 503 unless that is ready."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.server.phase == "ready" else 503)
            self.end_headers()
            self.wfile.write(json.dumps({"phase": self.server.phase, "model": "vl-7b"}).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        listening.phase = "ready"
        yield listening
        listening.shutdown()


def test_a_worker_is_as_it_says_or_cannot_be_reached(worker):
    endpoint = f"127.0.0.1:{worker.server_port}"
    assert status.ask(endpoint) == {"how": "ready", "model": "vl-7b"}
    worker.phase = "loading language model"
    assert status.ask_all([endpoint, "127.0.0.1:9"]) == {
        endpoint: {"how": "loading language model", "model": "vl-7b"},
        "127.0.0.1:9": {"how": "cannot be reached: [Errno 111] Connection refused", "model": ""},
    }


@pytest.fixture
def place(tmp_path, worker):
    """The folder of lingbi on a host with a server and a gateway, as a rollout leaves it."""
    env = f"LINGBI_SERVER_ADDRESS=127.0.0.1\nLINGBI_SERVER_PORTS={worker.server_port}\n"
    entry = {"version": "1.0.0", "model": "demo", "before": "", "result": "rolled", "at": "2026-01-02T03:04:05Z"}
    for name in ("server", "gateway"):
        live = tmp_path / "opt" / name / "live"
        live.mkdir(parents=True)
        (live / ".env").write_text(env)
        status.unit.confirm(str(live.parent), entry)
    (tmp_path / "opt/upstreams").mkdir()
    (tmp_path / "opt/upstreams/servers.conf").write_text(f"server 127.0.0.1:{worker.server_port}; # here\n")
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    return tmp_path / "opt"


@pytest.fixture
def told(controller, tmp_path, place):
    """Runs scripts/lab status' program with an inventory; (exit status, what it printed, what it said wrong)."""

    def ask(version="1.0.0", others=(), **common):
        here = {"here": {"ansible_connection": "local", "ansible_become": False}}
        servers = here | {name: {"ansible_host": "127.0.0.1", "ansible_port": 9} for name in others}
        known = {"lingbi_version": version, "lingbi_model": "demo", "lingbi_directory": str(place)} | common
        groups = {"lingbi_servers": {"hosts": servers}, "lingbi_gateways": {"hosts": here}}
        (tmp_path / "lab.yml").write_text(yaml.safe_dump({"all": {"vars": known, "children": groups}}))
        environment = {
            "ANSIBLE_CONFIG": str(variables.ROOT / "ansible/ansible.cfg"),
            "PATH": f"{tmp_path}:{controller}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "LINGBI_SUMMARY_FILE": str(tmp_path / "summary.json"),
        }
        command = [sys.executable, "-m", "host.lab.status", "-i", str(tmp_path / "lab.yml")]
        done = subprocess.run(command, cwd=variables.ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert not (tmp_path / "summary.json").exists()  # a rollout's table stays
        return done.returncode, done.stdout, done.stderr

    return ask


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_lab_as_declared_is_told_with_0_and_left_as_it_is(told, place):
    before = tree(place)
    code, said, wrong = told()
    assert code == 0, said + wrong
    assert "1/1 ready" in said and "here: serves" in said and said.endswith("All is as the inventory declares.\n")
    assert tree(place) == before


def test_another_version_a_drain_and_a_host_that_is_away_are_told_with_1(told, place, worker):
    (place / "upstreams/servers.conf").write_text(f"server 127.0.0.1:{worker.server_port} down; # here drained t-1\n")
    (place / "rollout.lock").write_text('{"who": "ann", "controller": "desk", "since": "then"}')
    code, said, wrong = told(version="1.1.0", others=["away"])
    assert code == 1, said + wrong
    assert "here: the server runs 1.0.0, and the inventory declares 1.1.0" in said and "here: here: drained" in said
    assert "away: cannot be reached over SSH" in said and "Connection refused" in said
    assert said.endswith("A rollout holds the lab: ann started it from desk at then.\n")


def test_an_inventory_that_is_wrong_is_told_with_2_and_ansibles_words(told):
    code, said, wrong = told(lingbi_gpu=[])
    assert (code, said) == (2, "") and "lingbi_gpu: there is no such variable; did you mean lingbi_gpus?" in wrong
