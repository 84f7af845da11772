"""What the playbooks decide, without a host: preflight's judgement, lists of servers, locks, trees, rollbacks."""

import time

import pytest

from tests.ansible import fleet_simulation
from tests.ansible.plugins import load

filters = load("filter_plugins/lingbi.py")
report = load("library/host_report.py")
upstreams = load("library/gateway_upstreams.py")
lock = load("library/rollout_lock.py")
files = load("library/unit_files.py")
idle = load("library/server_idle.py")
summary = load("callback_plugins/rollout_summary.py")

FIT = {
    "system": "debian",
    "release": "12",
    "kernel": "6.1.0-18-amd64",
    "clock_skew_s": 0.2,
    "memory_mib": 64 << 10,
    "disk_place": "/opt",
    "disk_free_gib": 200.0,
    "is_installed": False,
    "docker": "26.1.5+dfsg1",
    "compose": "2.26.1-4",
    "docker_fault": "",
    "taken_ports": [],
    "gpus": [{"index": "0", "uuid": "GPU-1", "driver": "550.54.15", "name": "H200"}],
    "slices": ["MIG-7"],
    "gpu_fault": "",
}
WANTED = {
    "kernel_minimum": "5.10",
    "docker_minimum": "24.0",
    "compose_minimum": "2.24.4",
    "driver_minimum": "525.60.13",
    "gpus": "all",
    "disk_free_gib": 60,
    "memory_gib": 16,
    "clock_skew_s": 5,
    "ports": [23333],
}


@pytest.mark.parametrize(
    ("seen", "wanted", "word"),
    [
        ({"system": "arch"}, {}, "the system is arch"),
        ({"kernel": "4.19.0"}, {}, "lingbi_kernel_minimum"),
        ({"clock_skew_s": -90.0}, {}, "-90 s off"),
        ({"memory_mib": 8 << 10}, {}, "lingbi_memory_gib"),
        ({"disk_free_gib": 12.34}, {}, "12.3 GiB of disk"),
        ({"docker": "20.10.24"}, {}, "lingbi_docker_minimum"),
        ({"compose": "2.20.0"}, {}, "lingbi_compose_minimum"),
        ({"compose": ""}, {}, "not there"),
        ({"docker": "", "docker_fault": "does not answer"}, {}, "does not answer"),
        ({"taken_ports": [23333]}, {}, "port 23333"),
        ({"gpu_fault": "nvidia-smi is not there"}, {}, "lingbi_gpus"),
        ({"gpus": [FIT["gpus"][0] | {"driver": "470.223.02"}]}, {}, "the NVIDIA driver is 470.223.02"),
        ({}, {"gpus": [3]}, "GPU 3 is not there"),
        ({}, {"gpus": ["MIG-8"]}, "GPU MIG-8 is not there"),
    ],
)
def test_each_fault_of_a_host_is_told_once_with_its_value(seen, wanted, word):
    (fault,) = report.judge(FIT | seen, WANTED | wanted)
    assert word in fault


@pytest.mark.parametrize("wanted", [{}, {"gpus": [0, "GPU-1", "MIG-7"]}, {"gpus": []}])
def test_a_fit_host_has_no_fault(wanted):
    assert report.judge(FIT, WANTED | wanted) == []


def test_a_host_that_serves_needs_no_free_disk_for_a_first_start():
    assert report.judge(FIT | {"disk_free_gib": 1.0, "is_installed": True}, WANTED) == []


@pytest.mark.parametrize(
    ("ports", "port", "is_covered"),
    [
        ("10.0.0.1:23333-23334->23333-23334/tcp", 23334, True),
        ("0.0.0.0:6006->6006/tcp, :::6006->6006/tcp", 6006, True),
        ("0.0.0.0:6006->6006/tcp", 23333, False),
    ],
)
def test_published_ports_are_read(ports, port, is_covered):
    assert report.covers(ports, port) == is_covered


def test_a_misspelt_variable_is_named_with_the_right_one():
    known = ["lingbi_version", "lingbi_serial"]
    assert filters.unknown_variables(["lingbi_seriall", "lingbi_run_port", "ansible_host", *known], known) == [
        "lingbi_seriall: there is no such variable; did you mean lingbi_serial?"
    ]


CHANGE = {"members": [], "join": {}, "drain": {}, "leave": [], "token": ""}


def test_the_list_of_servers_is_read_as_it_is_written():
    servers = {
        "a": {"endpoints": ["10.0.0.1:1", "10.0.0.1:2"], "token": None},
        "b": {"endpoints": ["[::1]:3"], "token": "t-1"},
    }
    assert upstreams.parse(upstreams.render(servers)) == servers
    assert "server [::1]:3 down; # b drained t-1\n" in upstreams.render(servers)
    assert upstreams.parse(upstreams.render({})) == {} and "server " in upstreams.render({})


def test_a_change_of_one_server_leaves_the_others_alone():
    servers = {name: {"endpoints": [f"{name}:1"], "token": None} for name in "abc"}
    drained = upstreams.change(servers, CHANGE | {"drain": {"a": ["a:1"]}, "token": "t"})
    assert drained["a"]["token"] == "t" and drained["b"] == servers["b"]
    assert upstreams.change(drained, CHANGE | {"join": {"b": ["b:1"]}})["a"]["token"] == "t"
    assert upstreams.change(drained, CHANGE | {"join": {"a": ["a:1"]}}) == servers
    assert set(upstreams.change(servers, CHANGE | {"members": ["a", "b"]})) == {"a", "b"}
    assert set(upstreams.change(servers, CHANGE | {"leave": ["a"]})) == {"b", "c"}


class Asked:
    """What the module's functions know of Ansible: the parameters, and no check mode."""

    check_mode = False

    def __init__(self, folder, **params):
        self.params = CHANGE | {"directory": str(folder / "gateway"), "folder": str(folder)} | params


def test_a_drain_whose_controller_is_gone_is_lifted_by_its_guard(tmp_path, monkeypatch):
    monkeypatch.setattr(upstreams, "POLL_S", 0.05)
    upstreams.update(Asked(tmp_path, join={"b": ["b:1"]}))
    upstreams.update(Asked(tmp_path, drain={"a": ["a:1"]}, token="t"))
    assert upstreams.guard(Asked(tmp_path, token="another", guard_s=1))["changed"] is False
    assert "drained t" in (tmp_path / "servers.conf").read_text()
    lifted = upstreams.guard(Asked(tmp_path, token="t", guard_s=1))
    assert lifted["changed"] and "drained" not in (tmp_path / "servers.conf").read_text()
    assert set(lifted["servers"]) == {"a", "b"}


def test_a_guard_ends_as_soon_as_its_drain_was_lifted(tmp_path, monkeypatch):
    monkeypatch.setattr(upstreams, "POLL_S", 0.05)
    monkeypatch.setattr(upstreams, "APPEARS_S", 0.2)
    begun = time.monotonic()
    assert upstreams.guard(Asked(tmp_path, token="t", guard_s=30))["changed"] is False
    assert time.monotonic() - begun < 10


OWNER = {"who": "ann", "controller": "desk", "boot": "1", "process": 7, "started": "99"}
HELD = OWNER | {"since": "then", "until": 100}


@pytest.mark.parametrize(
    ("owner", "gone", "break_lock", "now", "may"),
    [
        (OWNER, None, False, 50, True),
        (OWNER | {"process": 8}, None, False, 50, False),
        (OWNER | {"started": "100"}, None, False, 50, False),
        (OWNER | {"process": 8}, HELD, False, 50, True),
        (OWNER | {"process": 8}, HELD | {"process": 9}, False, 50, False),
        (OWNER | {"controller": "other"}, None, False, 101, True),
        (OWNER | {"controller": "other"}, None, True, 50, True),
    ],
)
def test_a_lock_is_taken_only_from_those_who_are_gone(owner, gone, break_lock, now, may):
    assert lock.may_take(HELD, {"owner": owner, "gone": gone, "break_lock": break_lock}, now) == may
    assert lock.may_take({}, {"owner": owner, "gone": None, "break_lock": False}, now)


def test_a_unit_rolls_only_for_a_reason():
    well = {"server": {"state": "running", "health": "healthy"}}
    running = {"files": {".env": "1", "compose.yaml": "2"}}
    assert files.reason(running, {".env": "1", "compose.yaml": "2"}, well, ["server"]) == ""
    assert files.reason(running, {".env": "3", "x": "4"}, well, ["server"]) == "changed: .env, compose.yaml, x"
    assert "not running" in files.reason(running, running["files"], {}, ["server"])
    ill = {"server": {"state": "running", "health": "unhealthy"}}
    assert "not healthy" in files.reason(running, running["files"], ill, ["server"])
    assert "nothing was started" in files.reason({}, running["files"], well, ["server"])


def test_requests_inside_are_read_from_metrics():
    assert idle.inside("# HELP x\nlingbi_requests_inside 3.0\nlingbi_ready 1.0\n") == 3
    with pytest.raises(ValueError, match="lingbi_requests_inside"):
        idle.inside("lingbi_ready 1.0\n")


def entry(version, at, result="rolled", **images):
    return f'{{"version": "{version}", "at": "{at}", "result": "{result}", "images": {str(images).replace(chr(39), chr(34))}}}\n'


def test_a_rollback_goes_to_what_ran_before_by_its_digests():
    server = entry("1", "a", server="s1") + entry("2", "c", server="s2") + entry("3", "e", "returned", server="s3")
    gateway = entry("1", "b", gateway="g1") + entry("2", "d", gateway="g2")
    assert filters.rollback_plan([server, gateway], "") == {"version": "1", "images": {"server": "s1", "gateway": "g1"}}
    assert filters.rollback_plan([server, gateway], "2")["images"] == {"server": "s2", "gateway": "g2"}
    with pytest.raises(Exception, match="never ran here"):
        filters.rollback_plan([server], "3")
    with pytest.raises(Exception, match="no version before"):
        filters.rollback_plan([entry("1", "a", server="s1")], "")


@pytest.mark.parametrize("fan_out", [1, 2, 3])
def test_weights_reach_every_host_once_from_one_that_has_them(fan_out):
    places = [filters.spread_parent(place, fan_out) for place in range(200)]
    for place, found in enumerate(places[1:], 1):
        assert found["parent"] < place and places[found["parent"]]["round"] < found["round"]
    served = [(found["round"], found["parent"]) for found in places[1:]]
    assert max(served.count(item) for item in served) <= fan_out
    assert max(found["round"] for found in places) == fleet_simulation.rounds_until(200, fan_out)
    assert filters.spread_rounds(200, fan_out) == fleet_simulation.rounds_until(200, fan_out)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (3, "3"), ("a b$c", "'a b$c'"), ("http://h:1/x", "http://h:1/x"), ("", "")]
)
def test_values_stand_in_an_env_file_as_they_are(value, text):
    assert filters.env_value(value) == text


def test_a_value_that_an_env_file_cannot_hold_is_refused():
    with pytest.raises(Exception, match="quote or a line break"):
        filters.env_value("it's $5")


def test_the_simulated_fleet_adds_up():
    """The arithmetic of the design: batches cover every host once, and larger ones end sooner."""
    assert [sum(fleet_simulation.batches(200, serial)) for serial in ("1", "5%", "10%", "7")] == [200] * 4
    assert fleet_simulation.batches(200, "10%")[:2] == [1, 20]
    still = fleet_simulation.Times(spread=0)
    total, away = fleet_simulation.roll(200, "10%", still, fleet_simulation.random.Random(1))
    one_turn = still.drain + still.stop + still.start + still.smoke + still.ours
    assert total == pytest.approx(len(fleet_simulation.batches(200, "10%")) * one_turn) and away == pytest.approx(
        one_turn
    )


def test_the_summary_is_a_table_of_equal_columns():
    lines = summary.table([{"host": "gpu1", "unit": "server", "result": "rolled"}, {"host": "g", "why": "x"}])[2:]
    assert lines[0].index("unit") == lines[1].index("server") and lines[2].startswith("g ")
