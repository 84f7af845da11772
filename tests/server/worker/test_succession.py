"""The processes of a worker on demand: real forks that do next to nothing."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from lingbi.launch.supervision import wait_until
from lingbi.worker.wake_times import parts_of
from tests.conftest import clean_environment, free_port

FIRST = textwrap.dedent(
    """
    import os, signal, sys, time
    from pathlib import Path
    from lingbi.settings import load_settings
    from lingbi.logs import configure
    from lingbi.worker.succession import Succession
    from lingbi.worker.takeover import SUCCEED, TAKE_OVER, take_over
    configure("INFO")

    def live(life):
        with open(sys.argv[1], "a") as out:
            print(os.getpid(), life.elder, file=out, flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            asked = Path(sys.argv[2])
            if asked.exists() and asked.read_text() == str(os.getpid()):
                asked.unlink()
                life.listener.close()
                os.kill(os.getppid(), SUCCEED)
                time.sleep(1)
                return 0
            time.sleep(0.02)

    if TAKE_OVER in sys.argv:
        sys.exit(take_over(live, load_settings(), lambda: None, sys.argv[sys.argv.index(TAKE_OVER) + 1 :]))
    program = [sys.executable, "-c", sys.orig_argv[2], *sys.argv[1:]]
    sys.exit(Succession(load_settings(), live, (), copied=sys.argv[3] == "copied", program=program).run())
    """
)


@pytest.fixture(params=["copied", "anew"])
def succession(tmp_path, request):
    """A succession of processes that wait; {"process", "port", "lives": a function, "leave": a file that names who is to go}."""
    port, state = free_port(), tmp_path / "state"
    environment = clean_environment(state) | {"LINGBI_PORT": str(port), "TMPDIR": str(tmp_path)}
    noted = tmp_path / "lives"
    command = [sys.executable, "-c", FIRST, str(noted), str(tmp_path / "leave"), request.param]
    process = subprocess.Popen(command, env=environment, stderr=(tmp_path / "log").open("w"))

    def lives() -> list[list[str]]:
        return [line.split() for line in noted.read_text().splitlines()] if noted.exists() else []

    try:
        assert wait_until(lambda: lives(), 240), (tmp_path / "log").read_text()
        yield {"process": process, "port": port, "lives": lives, "leave": tmp_path / "leave", "folder": tmp_path}
    finally:
        process.kill()
        process.wait()


def reaches(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 5).close()


def test_one_follows_the_other_and_the_port_is_never_closed(succession):
    (first, elder), *_ = succession["lives"]()
    assert elder == "None"
    succession["leave"].write_text(first)
    while len(succession["lives"]()) < 2:
        reaches(succession["port"])
        time.sleep(0.05)  # nobody takes these connections, and only so many may wait
    second, elder = succession["lives"]()[1]
    assert elder == first and psutil.pid_exists(int(first))  # it is still at its last answers
    assert wait_until(lambda: not psutil.pid_exists(int(first)), 60)
    reaches(succession["port"])
    succession["process"].terminate()
    assert succession["process"].wait(60) == 0 and not psutil.pid_exists(int(second))
    assert not (succession["folder"] / "state/run/worker-0.starts").exists()
    assert [item.name for item in succession["folder"].iterdir() if item.name.startswith("lingbi-")] == []


def test_one_that_is_killed_is_replaced_until_that_happens_too_often(succession):
    for killed in range(1, 4):
        assert wait_until(lambda killed=killed: len(succession["lives"]()) == killed, 240)
        os.kill(int(succession["lives"]()[-1][0]), signal.SIGKILL)
    assert succession["process"].wait(60) == 1 and len(succession["lives"]()) == 3
    assert '"crashed": 3' in (succession["folder"] / "state/run/worker-0.starts").read_text()


def test_no_process_outlives_the_first(succession):
    (pid, _), *_ = succession["lives"]()
    succession["process"].kill()
    assert wait_until(lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == "zombie", 5)


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = clean_environment(tmp_path / "state") | {
            "LINGBI_PORT": str(taken.getsockname()[1]),
            "LINGBI_ON_DEMAND": "true",
        }
        ended = subprocess.run(
            [sys.executable, "-m", "lingbi.worker"], env=environment, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 3 and "Address already in use" in ended.stderr


def test_a_wake_is_told_part_by_part():
    times = [("preparing weights", 10.0), ("loading vision tower", 10.5), ("loading language model", 12.0)]
    times += [("weights loaded", 14.0), ("probing", 15.0), ("ready", 15.5)]
    parts = parts_of(times, 9.9, 3.0, 0.2, {"drain_s": 1.0, "exit_s": 0.5})
    assert parts == {
        **{"check": 0.2, "drain": 1.0, "exit": 0.5, "turn": 1.3},
        **{"fit": 0.5, "tower": 1.5, "weights": 2.0, "engine": 1.0, "probe": 0.5, "other": 0.1},
    }
    assert sum(parts.values()) == pytest.approx(3.0 + 15.5 - 9.9)
