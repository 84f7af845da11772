"""Where supervisord listens, who finds it there, and what it says at a normal start."""

import os
import subprocess

import pytest

from lingbi.files import SOCKET_PATH_LIMIT
from lingbi.launch import supervision
from lingbi.launch.supervision import KEEPER, Supervisor, command_of, socket_path, wait_until
from lingbi.settings import Settings
from lingbi.temporary_folder import own_temporary_folder


def test_the_socket_of_a_long_path_is_found_by_root_where_a_service_of_another_user_made_it(tmp_path):
    state_dir = tmp_path / ("long" * 30)
    state_dir.mkdir()
    owner = os.getuid() or 4321
    os.chown(state_dir, owner, -1)
    found = socket_path(state_dir)
    assert f"lingbi-{owner}-" in found.name and len(os.fsencode(found)) <= SOCKET_PATH_LIMIT
    with own_temporary_folder():
        assert socket_path(state_dir) == found


@pytest.fixture
def values(tmp_path):
    """The environment of a supervisord whose worker only waits."""
    waiting = tmp_path / "python"
    waiting.write_text("#!/bin/sh\nexec sleep 60\n")
    waiting.chmod(0o755)
    return supervision.environment(Settings(state_dir=tmp_path / "state"), 1) | {"SERVER_PYTHON": str(waiting)}


def test_a_normal_start_has_no_critical_line_in_the_background(tmp_path, values):
    supervisor = Supervisor(tmp_path / "state")
    supervisor.start(values)
    try:
        assert wait_until(lambda: "worker-0" in Supervisor(tmp_path / "state").states(), 30)
        said = (tmp_path / "state/logs/supervisord.log").read_text()
    finally:
        supervisor.stop(30)
    assert "supervisord started with pid" in said and "CRIT" not in said, said


def test_a_normal_start_has_no_critical_line_in_front(tmp_path, values):
    for name in ("logs", "run"):
        (tmp_path / "state" / name).mkdir(parents=True)
    supervisor = Supervisor(tmp_path / "state")
    command = command_of(KEEPER, "--nodaemon")
    with subprocess.Popen(command, env=os.environ | values, stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert wait_until(lambda: "worker-0" in Supervisor(tmp_path / "state").states(), 30)
        finally:
            supervisor.stop(30)
        said = keeper.stdout.read()
    assert "RPC interface 'supervisor' initialized" in said and "CRIT" not in said, said
