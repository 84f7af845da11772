"""Images that no disk has room for are refused before the first one is asked for."""

import shutil

import pytest

from host.errors import Refusal
from host.images import disk
from host.stack import SERVICES

ALL = list(SERVICES)


def test_every_image_has_its_figures_and_a_build_takes_more():
    assert set(disk.BUILT_GB) == set(disk.PULLED_GB) == set(SERVICES)
    assert disk.needed_gb(ALL, is_pulled=False) > disk.needed_gb(ALL, is_pulled=True) > disk.needed_gb(["ui"], False)


def test_too_little_room_is_told_with_both_figures():
    with pytest.raises(Refusal) as caught:
        disk.check(ALL, False, 9.96, "/var/lib/docker")
    needed = (
        f"building server, ui, gateway takes up to {disk.needed_gb(ALL, False):.0f} GB of disk, and 10.0 GB are free"
    )
    assert needed in str(caught.value) and "in Docker's folder /var/lib/docker; free some" in str(caught.value)
    disk.check(["ui"], False, 9.96, "/var/lib/docker")
    disk.check(ALL, False, None, "")  # an engine elsewhere: nobody here knows


def test_it_is_the_disk_of_the_engines_folder(machine, tmp_path, monkeypatch):
    machine.have("docker", f"#!/bin/sh\n[ \"$*\" = 'info --format {{{{.DockerRootDir}}}}' ] && echo {tmp_path}\n")
    monkeypatch.setenv("PATH", str(machine.folder))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    free_gb, folder = disk.look()
    assert folder == str(tmp_path) and free_gb == pytest.approx(shutil.disk_usage(tmp_path).free / 1e9, rel=0.1)
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.5:2376")
    assert disk.look()[0] is None


def test_scripts_up_refuses_before_it_builds(machine, root):
    machine.have_docker(missing="exit 1", disk="echo /proc")  # a file system on which nothing is free
    done = machine.run(root, "host.start.up")
    assert done.returncode == 2 and "takes up to" in done.stderr and not (root / ".env").exists(), done.stderr
    assert not [call for call in machine.calls() if call.startswith("build ")]
