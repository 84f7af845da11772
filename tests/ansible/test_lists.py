"""The gateways' lists of servers: how they change, that a gateway takes them, and the guard of a drain."""

import http.server
import json
import subprocess
import threading

import pytest

from lingbi.launch.supervision import wait_until
from tests.ansible import variables
from tests.ansible.plugins import load

upstreams = load("library/gateway_upstreams.py")

CHANGE = {"members": [], "join": {}, "drain": {}, "lift": [], "leave": [], "token": ""}


def server(*endpoints, token=None, **models):
    """A server of the list; models: by the endpoints' hosts."""
    named = {end: models[end.split(":")[0]] for end in endpoints if end.split(":")[0] in models}
    return {"endpoints": list(endpoints), "models": named, "token": token}


def test_the_list_of_servers_is_read_as_it_is_written():
    servers = {
        "a": server("10.0.0.1:1", "10.0.0.1:2"),
        "b": server("[::1]:3", token="t-1"),
        "c": server("c:1", token="t-1", c="书生/4khd"),
        "d": {"endpoints": ["d:1", "d:2"], "models": {"d:1": "vl-7b", "d:2": "4khd-7b"}, "token": None},
    }
    assert upstreams.parse(upstreams.render(servers)) == servers
    assert "server [::1]:3 down; # b drained t-1\n" in upstreams.render(servers)
    assert "server c:1 down; # c drained t-1 model=书生/4khd\nserver d:1; # d model=vl-7b\n" in upstreams.render(
        servers
    )
    assert upstreams.parse(upstreams.render({})) == {} and "server " in upstreams.render({})


def test_a_change_of_one_server_leaves_the_others_alone():
    servers = {name: server(f"{name}:1") for name in "abc"}
    drained = upstreams.change(servers, CHANGE | {"drain": {"a": ["a:1"]}, "token": "t"})
    assert drained["a"]["token"] == "t" and drained["b"] == servers["b"]
    assert upstreams.change(drained, CHANGE | {"join": {"b": ["b:1"]}})["a"]["token"] == "t"
    assert upstreams.change(drained, CHANGE | {"join": {"a": ["a:1"]}}) == servers
    assert set(upstreams.change(servers, CHANGE | {"members": ["a", "b"]})) == {"a", "b"}
    assert set(upstreams.change(servers, CHANGE | {"leave": ["a"]})) == {"b", "c"}


def test_a_drain_keeps_the_lines_of_a_server_and_its_end_brings_them_back_as_they_were():
    """Whatever is rolled out there: the version that runs may have other workers and models than the next one."""
    servers = {"a": server("a:1", "a:2", a="vl-7b"), "b": server("b:1", b="4khd-7b")}
    drained = upstreams.change(servers, CHANGE | {"drain": {"a": ["a:1"], "new": ["n:1"]}, "token": "t"})
    assert drained["a"] == server("a:1", "a:2", token="t", a="vl-7b") and drained["new"] == server("n:1", token="t")
    assert upstreams.change(drained, CHANGE | {"lift": ["a", "nobody"]})["a"] == servers["a"]
    assert upstreams.change(drained, CHANGE | {"join": {"a": ["a:1"]}})["a"] == server("a:1")


def test_every_line_names_its_model_or_none_does():
    """As the gateways take it: a list from before there were several models is completed as soon as one has a name."""
    old = {"a": server("a:1"), "b": server("b:1", token="t"), "silent": server("s:1")}
    assert upstreams.unnamed(old, []) == ["a:1", "b:1", "s:1"] and upstreams.named(old, {}, ["a"]) == old
    named = upstreams.named(old, {"a:1": "vl-7b", "b:1": "4khd-7b"}, ["a"])
    assert named == {"a": server("a:1", a="vl-7b"), "b": server("b:1", token="t", b="4khd-7b")}
    assert upstreams.unnamed(named, ["b"]) == ["b:1"]  # only who joins is asked again
    assert upstreams.named(named, {"b:1": "vl-7b"}, ["b"])["b"]["models"] == {"b:1": "vl-7b"}
    with pytest.raises(ValueError, match="c: the workers do not tell which model they have"):
        upstreams.named(named | {"c": server("c:1")}, {}, ["c"])


@pytest.fixture
def worker():
    """A worker whose /ready tells .model, with 503 as one does that is not ready."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()
            self.wfile.write(json.dumps({"phase": "asleep", "model": self.server.model}).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        listening.endpoint, listening.model = f"127.0.0.1:{listening.server_port}", "vl-7b"
        yield listening
        listening.shutdown()


def test_a_server_is_listed_with_the_model_that_its_worker_tells(tmp_path, monkeypatch, worker):
    monkeypatch.setattr(upstreams.docker, "containers", lambda directory: {})
    upstreams.update(Asked(tmp_path, join={"a": [worker.endpoint]}))
    assert f"server {worker.endpoint}; # a model=vl-7b\n" in (tmp_path / "servers.conf").read_text()
    upstreams.update(Asked(tmp_path, drain={"a": [worker.endpoint]}, token="t"))
    worker.model = "4khd-7b"  # another version runs there when the server joins again
    upstreams.update(Asked(tmp_path, join={"a": [worker.endpoint]}))
    assert f"server {worker.endpoint}; # a model=4khd-7b\n" in (tmp_path / "servers.conf").read_text()


class Asked:
    """What the module's functions know of Ansible: the parameters, and no check mode."""

    check_mode = False

    def __init__(self, folder, **params):
        self.params = CHANGE | {"directory": str(folder / "gateway"), "folder": str(folder)} | params


def test_a_guard_ends_as_soon_as_its_drain_was_lifted_by_others(tmp_path, monkeypatch):
    monkeypatch.setattr(upstreams.docker, "containers", lambda directory: {})
    upstreams.update(Asked(tmp_path, drain={"a": ["a:1"]}, token="another"))
    assert upstreams.guard(Asked(tmp_path, token="t", guard_s=30)) is False
    assert "drained another" in (tmp_path / "servers.conf").read_text()


class Gateway:
    """A gateway's container: how it is, and what its reloads come to."""

    def __init__(self, monkeypatch, state="running", health="healthy", statuses=(0,)):
        self.reloads, statuses = 0, list(statuses)

        def run(*command, **_):
            assert command[:3] == ("docker", "exec", "c1") and "reload" in command
            self.reloads += 1
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            return subprocess.CompletedProcess(command, status, "", "nginx says no")

        found = {"gateway": {"id": "c1", "state": state, "health": health}}
        monkeypatch.setattr(upstreams.docker, "containers", lambda directory: found)
        monkeypatch.setattr(upstreams.docker, "run", run)


@pytest.mark.parametrize("health", ["healthy", "unhealthy", "starting", ""])
def test_every_gateway_that_runs_takes_a_new_list_at_once(tmp_path, monkeypatch, health):
    gateway = Gateway(monkeypatch, health=health)
    upstreams.update(Asked(tmp_path, join={"a": ["a:1"]}))
    assert gateway.reloads == 1


def test_a_gateway_that_does_not_take_the_list_is_told_and_the_list_is_as_before(tmp_path, monkeypatch):
    Gateway(monkeypatch, health="unhealthy", statuses=(3,))
    with pytest.raises(upstreams.docker.Failed, match="nginx says no"):
        upstreams.update(Asked(tmp_path, drain={"a": ["a:1"]}, token="t"))
    assert "drained" not in (tmp_path / "servers.conf").read_text()


def test_a_gateway_that_has_just_started_is_asked_again_and_one_that_is_down_is_not_asked(tmp_path, monkeypatch):
    gateway = Gateway(monkeypatch, health="starting", statuses=(3, 0))
    upstreams.update(Asked(tmp_path, join={"a": ["a:1"]}))
    assert gateway.reloads == 2
    gateway = Gateway(monkeypatch, state="exited")
    upstreams.update(Asked(tmp_path, join={"b": ["b:1"]}))
    assert gateway.reloads == 0


def test_a_drain_whose_controller_is_gone_is_lifted_by_the_process_that_the_drain_left(controller, tmp_path):
    """The module as Ansible runs it: it ends at once, and what it leaves behind lifts the drain and ends too."""
    arguments = {"directory": f"{tmp_path}/gateway", "folder": f"{tmp_path}/list"}
    arguments |= {"drain": {"a": ["a:1"]}, "token": "t", "guard_s": 4}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text("#!/bin/sh\nexit 0\n")  # an engine on which no gateway runs
    (tmp_path / "bin/docker").chmod(0o755)
    command = [controller / "ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "gateway_upstreams"]
    done = subprocess.run(
        [*map(str, command), "-a", json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PATH": f"{tmp_path / 'bin'}:{controller}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "ANSIBLE_CONFIG": str(variables.ROOT / "ansible/ansible.cfg"),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    drained = tmp_path / "list/servers.conf"
    assert drained.read_text().endswith("server a:1 down; # a drained t\n")
    assert wait_until(lambda: drained.read_text().endswith("server a:1; # a\n"), 20)
