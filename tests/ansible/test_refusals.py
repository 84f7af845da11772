"""What is wrong with an inventory or a host is refused by name before anything is changed; the hosts here are bare."""

import time

import pytest

from tests.ansible.conftest import VERSIONS

OLD = VERSIONS[0]
PREFLIGHT_S = 30


def refused(lab, inventory, *options, playbook="site"):
    """The output of a playbook that must refuse and change nothing."""
    played = lab.play(playbook, inventory, *options)
    assert played.status != 0 and played.changed == 0, played.output
    for name in lab.hosts:
        assert lab.root(name, "sh", "-c", "ls /opt/lingbi /usr/bin/dockerd 2>/dev/null", check=False) == ""
    return " ".join(played.output.split())


def test_a_misspelt_variable_is_named(bare_lab):
    said = refused(bare_lab, bare_lab.inventory(lingbi_version=OLD, hosts={"gpu2": {"lingbi_gpu": []}}))
    assert "gpu2: lingbi_gpu: there is no such variable; did you mean lingbi_gpus?" in said


def test_a_missing_version_and_a_wrong_type_are_named(bare_lab):
    assert "lingbi_version" in refused(bare_lab, bare_lab.inventory())
    assert "lingbi_ready_wait_s" in refused(
        bare_lab, bare_lab.inventory(lingbi_version=OLD, lingbi_ready_wait_s="soon")
    )


def test_everything_that_is_wrong_with_any_host_is_told_at_once(bare_lab):
    """An old driver, a full disk, a taken port, no way in: four hosts' worth of trouble in one answer."""
    stand_in = "#!/bin/sh\ncase \"$*\" in *query-gpu*) echo '0, GPU-1, 470.57.02, NVIDIA H200' ;; esac\n"
    bare_lab.root("gpu1", "sh", "-c", f"cat >/usr/bin/nvidia-smi <<'EOS'\n{stand_in}EOS\nchmod 755 /usr/bin/nvidia-smi")
    bare_lab.root("gate1", "sh", "-c", "setsid python3 -m http.server 6006 >/dev/null 2>&1 & sleep 1")
    hosts = {
        "gpu1": {"lingbi_gpus": [0, 5], "lingbi_disk_free_gib": 100000},
        "gpu2": {"ansible_ssh_private_key_file": str(bare_lab.folder / "stranger")},
    }
    try:
        said = refused(bare_lab, bare_lab.inventory(lingbi_version=OLD, hosts=hosts))
    finally:
        bare_lab.root("gpu1", "rm", "/usr/bin/nvidia-smi")
        bare_lab.root("gate1", "pkill", "-f", "http.server 6006")
    assert "gpu1: the NVIDIA driver is 470.57.02" in said and "gpu1: GPU 5 is not there" in said
    assert "are free for /opt" in said and "100000 are needed" in said
    assert "gpu2: cannot be reached over SSH" in said and "Permission denied" in said
    assert "gate1: port 6006 is taken by another program" in said


def test_gpus_without_a_driver_and_no_sudo_are_told(bare_lab):
    hosts = {"gpu1": {"lingbi_gpus": "all"}, "gpu2": {"ansible_user": "guest"}}
    said = refused(bare_lab, bare_lab.inventory(lingbi_version=OLD, hosts=hosts))
    assert "gpu1: GPUs are asked for (lingbi_gpus) and nvidia-smi is not there" in said
    assert "gpu2: Python or sudo cannot be used there" in said and "sudo password" in said


@pytest.mark.parametrize("hosts", [20])
def test_preflight_of_many_hosts_is_quick(bare_lab, hosts):
    """So many names in the inventory, over SSH to the lab's hosts; one of them asks for what is not there."""
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
    assert played.status != 0 and played.output.count("of memory are there and 100000 are needed") >= 1
    print(f"preflight of {hosts} hosts: {seconds:.1f} s")
    assert seconds < PREFLIGHT_S
