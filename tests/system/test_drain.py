"""SIGTERM: what runs is finished, what is new is refused, and the worker ends with status 0."""

import json
import time

import httpx

from lingbi.launch.supervision import wait_until
from tests.client import CHAT, SCENES, http, question
from tests.conftest import running_worker

LONG = {"max_tokens": 1500, "ignore_eos": True, "stream": True}


def test_running_answers_are_finished_and_new_ones_refused(tmp_path):
    (tmp_path / "temporary").mkdir()
    with running_worker(tmp_path / "state", TMPDIR=str(tmp_path / "temporary")) as server, http(server) as client:
        with client.stream("POST", CHAT, json=question(server, SCENES[0], **LONG)) as response:
            lines = response.iter_lines()
            next(lines)
            server["process"].terminate()
            refused = []

            def is_refused() -> bool:
                with http(server) as other:
                    refused.append(other.post(CHAT, json=question(server, SCENES[1])))
                return refused[-1].status_code == 503

            assert wait_until(is_refused, 10)
            assert refused[-1].json()["error"]["code"] == "not_ready" and refused[-1].headers["retry-after"]
            ready = httpx.get(server["url"] + "/ready", trust_env=False)
            assert (ready.status_code, ready.json()["phase"]) == (503, "draining")
            events = [line.removeprefix("data: ") for line in lines if line]
        assert events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert server["process"].wait(20) == 0
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_does_not_end_in_time_is_cut_off(tmp_path):
    with running_worker(tmp_path / "state", LINGBI_DRAIN_TIMEOUT_S="1") as server, http(server) as client:
        endless = LONG | {"max_tokens": 3500}
        with client.stream("POST", CHAT, json=question(server, SCENES[0], **endless)) as response:
            lines = response.iter_lines()  # kept: an iterator that goes away closes its response
            next(lines)
            start = time.monotonic()
            server["process"].terminate()
            assert server["process"].wait(10) == 0 and 0.9 < time.monotonic() - start < 8
