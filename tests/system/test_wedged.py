"""A worker whose engine stands still is noticed, refuses, ends, and is counted by its successor."""

import concurrent.futures
import contextlib
import re
import sys

import httpx
import psutil
import pytest

from lingbi.launch.supervision import Supervisor, wait_until
from lingbi.model.catalogue import DEMO_SERVED_NAME
from tests.client import CHAT, SCENES, body, fault, http, metric, question
from tests.conftest import ROOT, answers, clean_environment, running_server, running_worker

QUICK = {"LINGBI_WATCHDOG_INTERVAL_S": "1", "LINGBI_WATCHDOG_TIMEOUT_S": "3", "LINGBI_DRAIN_TIMEOUT_S": "3"}


def worker_that_breaks(state_dir, part: str, file):
    command = (sys.executable, "-m", "tests.system.broken_worker", part, str(file))
    path = {"PYTHONPATH": f"docker/server:docker/pictures:{'.'}"}
    return running_worker(state_dir, *command, **QUICK, **path)


def phases_until_it_ends(server) -> list:
    """The reports of /ready that are no 200, until the worker has ended with status 1."""
    reports = []

    def has_ended() -> bool:
        with contextlib.suppress(httpx.TransportError):
            response = httpx.get(server["url"] + "/ready", trust_env=False)
            reports.extend([response.json()] if response.status_code != 200 else [])
        return server["process"].poll() is not None

    assert wait_until(has_ended, 90) and server["process"].returncode == 1
    assert "given up" in server["log"].read_text()
    return reports


def test_a_model_that_stands_still_ends_the_worker(tmp_path):
    with worker_that_breaks(tmp_path / "state", "model", tmp_path / "break") as server:
        (tmp_path / "break").touch()
        phases_until_it_ends(server)
        assert "the language model has not moved" in server["log"].read_text()


def test_an_idle_worker_is_asked_and_stays_until_its_encoder_fails_twice(tmp_path):
    with worker_that_breaks(tmp_path / "state", "fails", tmp_path / "break") as server:
        answered = r'^lingbi_watchdog_probes_total\{.*result="answered"\} [2-9]'
        assert wait_until(lambda: re.search(answered, metrics_text(server), re.M), 60)
        assert httpx.get(server["url"] + "/ready", trust_env=False).status_code == 200
        (tmp_path / "break").touch()
        with http(server) as client:
            response = client.post(CHAT, json=question(server, SCENES[0]))
            assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_error")
        phases_until_it_ends(server)


def test_an_event_loop_that_stands_still_ends_the_worker(tmp_path):
    with worker_that_breaks(tmp_path / "state", "loop", tmp_path / "break") as server:
        (tmp_path / "break").touch()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(server["url"] + "/ready", timeout=1, trust_env=False)
        assert server["process"].wait(30) == 1


def test_an_encoder_that_stands_still_has_the_worker_replaced_and_counted_and_the_next_request_is_answered(tmp_path):
    """Text goes on, as it does when pictures hang; only a picture question can tell."""
    state_dir, file, start = tmp_path / "state", tmp_path / "break", tmp_path / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(
        f"import pathlib\nfrom tests.system.broken_worker import install\ninstall('encoder', pathlib.Path({str(file)!r}))\n"
    )
    path = {"PYTHONPATH": f"{start}:{ROOT}:{clean_environment(state_dir)['PYTHONPATH']}"}
    with running_server(state_dir, "--model", "demo", "--engine", "cpu", **QUICK, **path) as server:
        (first,) = Supervisor(state_dir).workers_left()
        reports = []

        def is_given_up() -> bool:
            reports.append(httpx.get(server["url"] + "/ready", trust_env=False).json())
            return reports[-1]["phase"] == "not answering"

        with http(server) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert fault(SCENES[0], client.post(CHAT, json=question(server, SCENES[0]))) is None
            file.touch()
            text = body(server, [{"role": "user", "content": "hello"}])
            assert client.post(CHAT, json=text).status_code == 200
            stuck = pool.submit(client.post, CHAT, json=question(server, SCENES[1]))
            assert wait_until(is_given_up, 40), reports[-1]
            assert "vision encoder" in reports[-1]["error"]
            assert psutil.wait_procs([first], timeout=30)[0], "the worker that stands still did not end"
            file.unlink()
            assert isinstance(stuck.exception(), httpx.HTTPError) or stuck.result().status_code != 200
        assert wait_until(lambda: answers(server["url"] + "/ready"), 180)
        assert metric(server, "lingbi_worker_restarts_total") == 1
        assert f'lingbi_worker_restarts_total{{model="{DEMO_SERVED_NAME}",reason="wedged"}} 1.0' in metrics_text(server)
        with http(server) as client:
            assert fault(SCENES[1], client.post(CHAT, json=question(server, SCENES[1]))) is None
        assert [worker.pid for worker in Supervisor(state_dir).workers_left()] != [first.pid]


def metrics_text(server) -> str:
    return httpx.get(server["url"] + "/metrics", trust_env=False).text
