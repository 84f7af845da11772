"""A worker whose engine stands still is noticed, refuses, ends, and is counted by its successor."""

import sys

import httpx
import pytest

from lingbi.supervision import wait_until
from tests.client import CHAT, SCENES, body, fault, http, metric, question
from tests.conftest import running_worker

QUICK = {"LINGBI_WATCHDOG_INTERVAL_S": "1", "LINGBI_WATCHDOG_TIMEOUT_S": "3", "LINGBI_DRAIN_TIMEOUT_S": "3"}


def worker_that_breaks(state_dir, part: str, file):
    command = (sys.executable, "-m", "tests.system.broken_worker", part, str(file))
    path = {"PYTHONPATH": f"docker/server:{'.'}"}
    return running_worker(state_dir, *command, **QUICK, **path)


@pytest.mark.parametrize("part", ["encoder", "model", "fails"])
def test_a_part_that_stands_still_has_the_worker_replaced_and_counted(tmp_path, part):
    state_dir, file = tmp_path / "state", tmp_path / "break"
    with worker_that_breaks(state_dir, part, file) as server:
        with http(server) as client:
            assert fault(SCENES[0], client.post(CHAT, json=question(server, SCENES[0]))) is None
            file.touch()
            if part == "encoder":
                text = body(server, [{"role": "user", "content": "hello"}])
                assert client.post(CHAT, json=text).status_code == 200, "text goes on, as it does when pictures hang"
            refusals = []

            def is_refused() -> bool:
                refusals.append(client.get("/ready"))
                return refusals[-1].status_code == 503

            assert wait_until(is_refused, 20)
            report = refusals[-1].json()
            assert report["phase"] == "not answering" and report["error"]
        assert server["process"].wait(20) == 1
        assert "given up" in server["log"].read_text()
    file.unlink()
    with worker_that_breaks(state_dir, part, file) as server:
        assert metric(server, "lingbi_worker_restarts_total") == 1
        with http(server) as client:
            assert fault(SCENES[1], client.post(CHAT, json=question(server, SCENES[1]))) is None


def test_an_event_loop_that_stands_still_ends_the_worker(tmp_path):
    with worker_that_breaks(tmp_path / "state", "loop", tmp_path / "break") as server:
        (tmp_path / "break").touch()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(server["url"] + "/ready", timeout=1, trust_env=False)
        assert server["process"].wait(30) == 1


def test_an_idle_worker_is_asked_and_stays(tmp_path):
    with worker_that_breaks(tmp_path / "state", "encoder", tmp_path / "never") as server:
        assert wait_until(lambda: metric(server, "lingbi_watchdog_probes_total") >= 2, 15)
        assert httpx.get(server["url"] + "/ready", trust_env=False).status_code == 200


def test_a_crash_is_counted_and_an_orderly_end_is_not(tmp_path):
    with running_worker(tmp_path / "state") as server:
        server["process"].kill()
        server["process"].wait(10)
    with running_worker(tmp_path / "state") as server:
        assert metric(server, "lingbi_worker_restarts_total") == 1
        server["process"].terminate()
        assert server["process"].wait(10) == 0
    with running_worker(tmp_path / "state") as server:
        assert metric(server, "lingbi_worker_restarts_total") == 0
