"""Prometheus's target lists, written by the role's own tasks for an inventory with two gateways."""

import json

import pytest
import yaml

from tests.ansible.play import played
from tests.ansible.roles import ANSIBLE

WRITTEN = ("Create the folder for Prometheus's target lists", "Write Prometheus's target lists")
PLANNED = {"lingbi_run_address", "lingbi_run_gpu_exporter", "lingbi_run_placements"}
SERVER = {"lingbi_run_port": 23333, "lingbi_run_workers": 2, "lingbi_gpus": [0, 1]}
INVENTORY = {
    "lingbi_servers": {"hosts": {"gpu1": {"lingbi_address": "10.0.0.5"} | SERVER}},
    "lingbi_gateways": {
        "hosts": {
            "gate1": {"lingbi_address": "10.0.0.2", "lingbi_gateway_port": 443},
            "gate2": {"lingbi_address": "10.0.0.3", "lingbi_gateway_address": "10.1.0.3"},
        }
    },
}
COMMON = {"lingbi_monitoring": True, "lingbi_gateway_address": "0.0.0.0", "lingbi_gateway_port": 6006}


def tasks() -> list:
    """Of the role lingbi what it plans of a host's addresses, and of the role agents what writes the lists."""
    plan = yaml.safe_load((ANSIBLE / "roles/lingbi/tasks/plan.yml").read_text())[0]
    plan["ansible.builtin.set_fact"] = {name: plan["ansible.builtin.set_fact"][name] for name in PLANNED}
    lists = [
        task
        for task in yaml.safe_load((ANSIBLE / "roles/agents/tasks/main.yml").read_text())
        if task["name"] in WRITTEN
    ]
    return [plan, {"ansible.builtin.include_vars": str(ANSIBLE / "roles/agents/vars/main.yml")}, *lists]


@pytest.mark.parametrize("tls_folder", ["", "/etc/lingbi/tls"])
def test_servers_gateways_their_placing_and_gpus_are_listed(controller, tmp_path, tls_folder):
    folder = tmp_path / "targets"
    told = COMMON | {"lingbi_tls_folder": tls_folder, "lingbi_targets_directory": str(folder)}
    inventory = {"all": {"children": INVENTORY, "vars": told | {"ansible_connection": "local"}}}
    (tmp_path / "lab.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks()}]))
    done = played(controller, tmp_path, "-i", tmp_path / "lab.yml", tmp_path / "play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    placing = {"targets": ["10.0.0.2:443", "10.1.0.3:6006"]}
    assert {file.name: json.loads(file.read_text()) for file in folder.iterdir()} == {
        "servers.yml": [{"targets": ["10.0.0.5:23333", "10.0.0.5:23334"]}],
        "gateways.yml": [{"targets": ["10.0.0.2:9113", "10.0.0.3:9113"]}],
        "placements.yml": [placing | ({"labels": {"__scheme__": "https"}} if tls_folder else {})],
        "gpus.yml": [{"targets": ["10.0.0.5:9400"]}],
    }
