"""Waiting for containers ends: when they are up, when one crashes in a loop, and when the time is over."""

import http.server
import json
import subprocess
import threading
from itertools import chain, repeat

import pytest

from host.errors import StartFailed
from host.start import waiting

READY = {"status": "ready", "model": "internlm-xcomposer2-demo", "engine": "cpu"}


def container(service: str, restarts: int = 0, status: str = "running") -> dict:
    labels = {"com.docker.compose.service": service}
    return {"Id": service, "RestartCount": restarts, "State": {"Status": status}, "Config": {"Labels": labels}}


@pytest.fixture
def up(monkeypatch):
    """A `docker compose up` that never ends by itself, and a function that says what Docker sees meanwhile."""
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    monkeypatch.setattr(waiting, "TELL_EVERY_S", 0)
    monkeypatch.setattr(waiting, "log_tail", lambda: "server | the end of a log")
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process, lambda *seen: monkeypatch.setattr(waiting, "containers", chain(seen, repeat(seen[-1])).__next__)
        process.kill()


def test_a_crash_loop_is_ended_with_the_logs(up):
    process, sees = up
    sees([container("server", 4)], [container("server", 5)], [container("server", 7)])
    with pytest.raises(
        StartFailed,
        match="server ended 3 times; scripts/down ends them all; the ends of all logs:\nserver | the end of a log",
    ):
        waiting.watch(process, {"server": 4}, 60, print)


def test_a_crash_loop_is_told_where_compose_gave_up_at_its_first_end(up):
    _, sees = up
    sees([container("server", 0, "restarting")], [container("server", 1)], [container("server", 3)])
    assert waiting.ends_again({}) == "server ended 3 times"
    sees([container("server")])  # Compose gave up for another reason
    assert waiting.ends_again({}) == ""


def test_what_does_not_come_up_is_not_waited_for_for_ever(up):
    process, sees = up
    sees([container("server")])
    with pytest.raises(StartFailed, match="not all were up within 0 s"):
        waiting.watch(process, {}, 0.1, print)


def test_a_fetch_may_take_its_time_and_is_told(up, monkeypatch):
    process, sees = up
    fetching, told = [container("weights")], []
    sees(*[fetching] * 30, [container("weights", status="exited")])
    monkeypatch.setattr(
        waiting, "run", lambda *command: subprocess.CompletedProcess(command, 0, f"{len(told)} of 17 GB", "")
    )
    with pytest.raises(StartFailed, match="not all were up within 0 s"):
        waiting.watch(process, {}, 0.05, told.append)
    assert told[:2] == ["weights 0 of 17 GB", "weights 1 of 17 GB"] and len(told) == 30


def test_names_before_log_lines_stand_in_one_column():
    told = "server-1  | one\nweights-1  | two | 2\nserver-1   | three\n"
    assert waiting.aligned(told) == "server-1   | one\nweights-1  | two | 2\nserver-1   | three\n"
    assert waiting.aligned("") == ""


def test_what_is_up_is_up(up):
    process, sees = up
    sees([container("server")])
    process.kill()
    process.wait()
    waiting.watch(process, {}, 60, print)


@pytest.fixture
def gateway():
    """A gateway whose statuses stand in a list; the last one stays."""
    statuses = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()
            self.wfile.write(json.dumps(READY).encode())

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", statuses
        server.shutdown()


def test_up_is_what_answers_through_the_gateway(gateway, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    url, statuses = gateway
    statuses += [502, 503, 200]
    assert waiting.wait_answer(url, "10.0.0.5:23333") == READY
    statuses[:] = [502]
    monkeypatch.setattr(waiting, "ANSWER_S", 0.1)
    with pytest.raises(
        StartFailed, match="status 502: .*; are LINGBI_GATEWAY_SERVERS=10.0.0.5:23333 in .env the right"
    ):
        waiting.wait_answer(url, "10.0.0.5:23333")
