"""What is wrong with an inventory is refused by name before any host is asked: the hosts here cannot be reached."""

import re

import pytest
import yaml

from tests.ansible import variables
from tests.ansible.play import played

NOWHERE = {"ansible_host": "192.0.2.1"}  # RFC 5737: nobody's


@pytest.fixture
def refused(controller, tmp_path):
    """Plays a playbook with an inventory (a dictionary; None: none) that must be refused; returns what it said."""

    def play(inventory, *options, playbook="site"):
        file = tmp_path / "lab.yml"
        if inventory is not None:
            file.write_text(yaml.safe_dump(inventory))
        done = played(controller, tmp_path, variables.ROOT / f"ansible/{playbook}.yml", "-i", file, *options)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode != 0 and "Examine the host" not in said, said
        assert not (tmp_path / "secrets").exists()
        return said

    return play


def inventory(groups=("lingbi_servers", "lingbi_gateways"), host=None, **common):
    hosts = {"gpu1": NOWHERE | (host or {})}, {"gate1": NOWHERE}
    groups = {name: {"hosts": members} for name, members in zip(groups, hosts, strict=True)}
    return {"all": {"vars": {"lingbi_version": "1.0.0"} | common, "children": groups}}


def test_an_inventory_that_is_not_there_is_refused(refused):
    assert "lab.yml" in refused(None)


@pytest.mark.parametrize(
    "groups",
    [("lingbi_server", "lingbi_gateways"), ("lingbi_servers", "lingbi_gateway"), ("lingbi_server", "gateways")],
)
def test_a_misspelt_group_is_refused(refused, groups):
    assert re.search("lingbi_(servers|gateways)", refused(inventory(groups=groups)))


def test_a_misspelt_variable_is_named(refused):
    said = refused(inventory(host={"lingbi_gpu": []}))
    assert "gpu1: lingbi_gpu: there is no such variable; did you mean lingbi_gpus?" in said


def test_a_missing_version_is_named(refused):
    wanted = inventory()
    del wanted["all"]["vars"]["lingbi_version"]
    assert "missing required arguments: lingbi_version" in refused(wanted)


def test_a_wrong_type_is_named(refused):
    assert "lingbi_ready_wait_s" in refused(inventory(lingbi_ready_wait_s="soon"))


def test_values_and_settings_are_named_together(refused):
    """A version that YAML reads as a number, no host at once, a setting that is none, one that is the playbooks'."""
    settings = {"LINGBI_MAX_PICTURE": 4, "LINGBI_WORKERS": 2}
    said = refused(
        inventory(
            lingbi_version=1.10,
            lingbi_serial=0,
            lingbi_settings=settings,
            lingbi_gateway_settings={"LINGBI_GATEWAY_KEYRATE": 9},
            lingbi_image_digests={"1.0.0": {"servre": "sha256:12"}},
        ),
        playbook="deploy",
    )
    assert "lingbi_version: 1.1 is a number to YAML, which reads 1.10 as 1.1; put it in quotes" in said
    assert "lingbi_serial: 0 is neither" in said
    assert "lingbi_image_digests: 1.0.0: servre: sha256:12: give server, ui or gateway" in said
    assert "lingbi_settings: LINGBI_MAX_PICTURE: no such setting; did you mean LINGBI_MAX_PICTURES?" in said
    assert "lingbi_settings: LINGBI_WORKERS: the playbooks set it" in said
    assert "LINGBI_GATEWAY_KEYRATE: no such setting; did you mean LINGBI_GATEWAY_KEY_RATE?" in said
