"""What preflight makes of a host: its faults, its clock, and the ports that others hold there."""

import json
import os
import socket

import pytest

from lingbi.model import gpus as server_gpus
from tests.ansible import roles
from tests.ansible.plugins import load

hosts = load("filter_plugins/hosts.py")
report = load("library/host_report.py")
report_action = load("action_plugins/host_report.py")

H200 = {"index": "0", "uuid": "GPU-1", "driver": "550.54.15", "name": "H200", "capability": [9, 0]}
B200 = {"index": "1", "uuid": "GPU-2", "driver": "570.86.10", "name": "NVIDIA B200", "capability": [10, 0]}
FIT = {
    "system": "debian",
    "release": "12",
    "kernel": "6.1.0-18-amd64",
    "memory_mib": 64 << 10,
    "disks": {"/var/lib/docker": 200.0},
    "has_address": True,
    "is_installed": False,
    "docker": "26.1.5+dfsg1",
    "compose": "2.26.1-4",
    "docker_fault": "",
    "taken_ports": [],
    "gpus": [H200],
    "slices": {"MIG-7": "0"},
    "gpu_fault": "",
}
WANTED = {
    "kernel_minimum": "5.10",
    "docker_minimum": "24.0",
    "compose_minimum": "2.24.4",
    "driver_minimum": "525.60.13",
    "capabilities": [[7, 0], [9, 0]],
    "gpus": "all",
    "disk_free_gib": 60,
    "update_disk_free_gib": 12,
    "address": "10.0.0.1",
    "needs_engine": False,
    "memory_gib": 16,
    "ports": [23333],
}


@pytest.mark.parametrize(
    ("seen", "wanted", "word"),
    [
        ({"system": "arch"}, {}, "the system is arch"),
        ({"kernel": "4.19.0"}, {}, "lingbi_kernel_minimum"),
        ({"memory_mib": 8 << 10}, {}, "lingbi_memory_gib"),
        (
            {"disks": {"/data": 12.34}},
            {},
            "12.3 GiB of disk are free for /data and 60 are needed (lingbi_disk_free_gib)",
        ),
        ({"disks": {"/data": 1.0}, "is_installed": True}, {}, "12 are needed (lingbi_update_disk_free_gib)"),
        ({"has_address": False}, {}, "10.0.0.1 is not an IP address of this host (lingbi_address)"),
        ({"docker": ""}, {"needs_engine": True}, "run site first"),
        ({"docker": "20.10.24"}, {}, "lingbi_docker_minimum"),
        ({"compose": "2.20.0"}, {}, "lingbi_compose_minimum"),
        ({"compose": ""}, {}, "the Compose plugin is missing"),
        ({"docker": "", "docker_fault": "does not answer"}, {}, "does not answer"),
        ({"taken_ports": [23333]}, {}, "port 23333"),
        ({"gpu_fault": "nvidia-smi failed"}, {}, "lingbi_gpus"),
        ({"gpus": [H200 | {"driver": "470.223.02", "capability": None}]}, {}, "the NVIDIA driver is 470.223.02"),
        ({}, {"gpus": [3]}, "this host has no GPU 3"),
        ({}, {"gpus": ["MIG-8"]}, "this host has no GPU MIG-8"),
        ({"gpus": [H200, B200]}, {}, "GPU 1 (NVIDIA B200) has compute capability 10.0"),
        ({"gpus": [H200, B200]}, {"gpus": ["GPU-2"]}, "code for 7.0 to 9.0 only"),
        ({"gpus": [H200, B200], "slices": {"MIG-9": "1"}}, {"gpus": ["MIG-9"]}, "leave it out of lingbi_gpus"),
        ({"gpus": [H200 | {"name": "Tesla P100", "capability": [6, 0]}]}, {}, "has compute capability 6.0"),
    ],
)
def test_each_fault_of_a_host_is_told_once_with_its_value(seen, wanted, word):
    (fault,) = report.judge(FIT | seen, WANTED | wanted)
    assert word in fault


@pytest.mark.parametrize("wanted", [{}, {"gpus": [0, "GPU-1", "MIG-7"]}, {"gpus": []}])
def test_a_fit_host_has_no_fault(wanted):
    assert report.judge(FIT, WANTED | wanted) == []


@pytest.mark.parametrize("asked", [[0], ["GPU-1"], ["MIG-7"], []])
def test_a_card_without_code_that_is_not_to_serve_is_no_fault(asked):
    assert report.judge(FIT | {"gpus": [H200, B200]}, WANTED | {"gpus": asked}) == []


def test_the_bounds_are_those_that_the_server_judges_by():
    found = hosts.gpu_capabilities(roles.ANSIBLE.parent / "docker/server/lingbi/model/gpus.py")
    assert found == [list(server_gpus.OLDEST), list(server_gpus.NEWEST)] == WANTED["capabilities"]
    with pytest.raises(Exception, match="does not declare OLDEST, NEWEST"):
        hosts.gpu_capabilities(__file__)


SMI = """#!/bin/sh
case "$*" in
    *compute_cap*) %s ;;
    *query-gpu*) echo '0, GPU-1, 550.54.15, NVIDIA H200'; echo '1, GPU-2, 550.54.15, NVIDIA H200' ;;
    -L) echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'
        echo 'GPU 1: NVIDIA H200 (UUID: GPU-2)'
        echo '  MIG 1g.18gb     Device  0: (UUID: MIG-3)' ;;
esac
"""


@pytest.mark.parametrize(
    ("answer", "capabilities"),
    [
        ("echo '0, 9.0'; echo '1, 10.0'", [[9, 0], [10, 0]]),
        ("echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2", [None, None]),
    ],
)
def test_gpus_are_found_with_their_capability_where_the_driver_tells_it(tmp_path, monkeypatch, answer, capabilities):
    (tmp_path / "nvidia-smi").write_text(SMI % answer)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    gpus, slices, fault = report.find_gpus()
    assert [gpu["capability"] for gpu in gpus] == capabilities and slices == {"MIG-3": "1"} and fault == ""


@pytest.mark.parametrize(
    ("time_s", "off_s"), [(99.0, -1.0), (10.0, -90.0), (100.0, 0.0), (104.0, 0.0), (130.0, 0.0), (131.5, 1.5)]
)
def test_a_clock_is_off_by_what_no_wait_for_the_host_explains(time_s, off_s):
    """Asked at 100 s of the controller's clock, and answered at 130 s: the host is slow, or far away."""
    assert report_action.off_by(time_s, asked_s=100.0, answered_s=130.0) == off_s


@pytest.mark.parametrize("skew_s", [-90.0, 5.1])
def test_a_clock_that_is_off_is_told_with_its_value(skew_s):
    (fault,) = report_action.clock_faults(skew_s, most_s=5)
    assert f"{skew_s:+.0f} s off" in fault and "lingbi_clock_skew_s" in fault


@pytest.mark.parametrize("skew_s", [0.2, 5.0, -5.0])
def test_a_clock_within_the_bound_is_no_fault(skew_s):
    assert report_action.clock_faults(skew_s, most_s=5) == []


def test_a_host_that_serves_needs_less_disk_than_for_a_first_start():
    assert report.judge(FIT | {"disks": {"/data": 12.0}, "is_installed": True}, WANTED) == []


@pytest.mark.parametrize(
    ("wanted", "found", "ports"),
    [
        ({"workers": 2, "gpus": []}, 0, [23333, 23334]),
        ({"workers": 0, "gpus": "all"}, 3, [23333, 23334, 23335]),
        ({"workers": 0, "gpus": []}, 0, [23333]),
        ({"workers": 0, "gpus": [0, 1]}, 4, [23333, 23334]),
    ],
)
def test_the_ports_of_all_workers_are_looked_at(wanted, found, ports):
    assert report.worker_ports(wanted | {"first_port": 23333}, [{}] * found) == ports
    assert len(ports) == hosts.worker_count(wanted["workers"], wanted["gpus"], [{}] * found)
    assert report.worker_ports(wanted | {"first_port": 0}, []) == []


@pytest.mark.parametrize(("together", "workers"), [(1, 4), ("2", 2), (2, 2), ("auto", 4)])
def test_two_gpus_that_hold_one_copy_are_one_worker(together, workers):
    assert hosts.worker_count(0, "all", [{}] * 4, together) == workers
    assert hosts.worker_count(0, [0, 1], [{}] * 4, 2) == 1
    assert hosts.worker_count(3, "all", [{}] * 4, together) == 3


def test_only_an_ip_address_of_the_host_can_be_published_on():
    assert report.has_address("127.0.0.1")
    assert not report.has_address("192.0.2.1") and not report.has_address("localhost")


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


def test_a_port_of_a_container_that_starts_is_not_anothers(monkeypatch):
    """The port is bound first and listed with the container's later, as while another operator rolls."""
    row = json.dumps({"Ports": "10.0.0.1:23333->23333/tcp", "Labels": "com.docker.compose.project=lingbi-server"})
    lists = iter(["", "", row])
    monkeypatch.setattr(report, "is_taken", lambda port: True)
    monkeypatch.setattr(report, "run", lambda *command: (0, next(lists)))
    assert report.others_ports([23333]) == []


def test_a_port_that_stays_anothers_is_told(monkeypatch):
    monkeypatch.setattr(report, "STARTING_S", 0)
    monkeypatch.setattr(report, "run", lambda *command: (0, ""))
    with socket.socket() as other:
        other.bind(("", 0))
        port = other.getsockname()[1]
        other.listen()
        assert report.others_ports([port]) == [port]
    assert report.others_ports([port]) == []
