"""What is wrong with a host is refused by name before anything is changed; the hosts here are bare."""

import time

import pytest

from tests.ansible.conftest import VERSIONS
from tests.ansible.lab import signing
from tests.host import archives

OLD = VERSIONS[0]
PREFLIGHT_S = 60  # of 20 hosts; 7 s alone, and several times that on a slow and busy machine


def refused(lab, inventory, *options, playbook="site"):
    """The output of a playbook that must refuse and change nothing."""
    played = lab.play(playbook, inventory, *options)
    assert played.status != 0 and played.changed == 0, played.output
    for name in lab.hosts:
        assert lab.root(name, "sh", "-c", "ls /opt/lingbi /usr/bin/dockerd 2>/dev/null", check=False) == ""
    return " ".join(played.output.split())


def test_everything_that_is_wrong_with_any_host_is_told_at_once(bare_lab):
    """An old driver, a full disk, taken ports, another's address, no way in: much trouble in one answer."""
    bare_lab.root("gate1", "sh", "-c", "setsid python3 -m http.server 6006 >/dev/null 2>&1 & sleep 1")
    bare_lab.root("gpu1", "sh", "-c", "setsid python3 -m http.server 23334 >/dev/null 2>&1 & sleep 1")
    hosts = {
        "gpu1": {
            "lingbi_gpus": [0, 5],
            "lingbi_disk_free_gib": 100000,
            "lingbi_address": bare_lab.hosts["gpu2"].address,
        },
        "gpu2": {"ansible_ssh_private_key_file": str(bare_lab.folder / "stranger")},
    }
    try:
        with bare_lab.driver("gpu1", "470.57.02", "10.0"):
            said = refused(bare_lab, bare_lab.inventory(lingbi_version=OLD, hosts=hosts))
    finally:
        for name, port in (("gate1", 6006), ("gpu1", 23334)):
            bare_lab.root(name, "pkill", "-f", f"http.server {port}")
    assert "gpu1: the NVIDIA driver is 470.57.02" in said and "gpu1: this host has no GPU 5" in said
    assert "gpu1: GPU 0 (NVIDIA H200) has compute capability 10.0" in said
    assert "are free for /var/lib/docker and 100000 are needed (lingbi_disk_free_gib)" in said
    assert f"gpu1: {bare_lab.hosts['gpu2'].address} is not an IP address of this host (lingbi_address)" in said
    assert "gpu1: port 23334 is taken by another program" in said  # the second worker's
    assert "gpu2: cannot be reached over SSH" in said and "Permission denied" in said
    assert "gate1: port 6006 is taken by another program" in said


@pytest.mark.steady_network
def test_a_version_for_hosts_without_an_engine_gpus_without_a_driver_and_no_sudo_are_told(bare_lab):
    hosts = {"gpu1": {"lingbi_gpus": "all"}, "gpu2": {"ansible_user": "guest"}}
    said = refused(bare_lab, bare_lab.inventory(lingbi_version=OLD, hosts=hosts), playbook="deploy")
    assert "gate1: there is no Docker engine; run site first" in said
    assert "gpu1: lingbi_gpus asks for GPUs, but nvidia-smi is not installed" in said
    assert "gpu2: Python or sudo cannot be used there" in said and "sudo password" in said


@pytest.mark.steady_network
def test_an_altered_archive_is_refused_before_anything_is_installed_on_a_host(bare_lab):
    whole = archives.signed(archives.members(OLD), signing.key_of(bare_lab))
    file = archives.pack(bare_lab.folder / "altered.tar", whole | {"images.tar": b"what docker save wrotf"})
    inventory = bare_lab.inventory(lingbi_version=OLD, lingbi_image_archive=str(file), **signing.trusting(bare_lab))
    said = refused(bare_lab, inventory)
    assert "3 hosts are fit" in said  # they were asked, and nothing else was wrong
    assert f"{file}: images.tar was altered: its SHA-256 is" in said and "nothing was changed on any host" in said


@pytest.mark.steady_network
@pytest.mark.parametrize("hosts", [20])
def test_preflight_of_many_hosts_is_quick(bare_lab, hosts):
    """So many names in the inventory, over SSH to the lab's hosts; one of them needs more memory than there is."""
    servers, addresses = bare_lab.servers, [bare_lab.hosts[name] for name in bare_lab.servers]
    many = [f"many{number}" for number in range(hosts)]
    try:
        bare_lab.servers = many
        bare_lab.hosts |= {name: addresses[number % len(addresses)] for number, name in enumerate(many)}
        inventory = bare_lab.inventory("many.yml", lingbi_version=OLD, hosts={"many7": {"lingbi_memory_gib": 100000}})
        begun = time.monotonic()
        played = bare_lab.play("site", inventory)
        seconds = time.monotonic() - begun
    finally:
        bare_lab.servers = servers
        for name in many:
            del bare_lab.hosts[name]
    assert played.status != 0 and played.output.count("of memory and needs 100000") >= 1
    print(f"preflight of {hosts} hosts: {seconds:.1f} s")
    assert seconds < PREFLIGHT_S
