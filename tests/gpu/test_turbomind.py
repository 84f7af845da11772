"""The same stack on TurboMind: run on a machine with an NVIDIA GPU."""

import json
import signal

import pytest

from lingbi.launch.supervision import Supervisor, wait_until
from lingbi.model.random import make
from tests.conftest import answers, lingbi, running_server
from tests.geometries import PUBLISHED
from training.demo.score import PASS_MARK, UrlModel, score_model

SMALL_CACHE = {"LINGBI_CACHE_FRACTION": "0.05"}
EQUAL_ANSWERS = 0.99

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def turbomind(tmp_path_factory):
    state_dir = tmp_path_factory.mktemp("turbomind") / "state"
    with running_server(state_dir, "--model", "demo", "--engine", "turbomind", **SMALL_CACHE) as report:
        yield report | {"state_dir": state_dir}


def test_smoke_by_content(turbomind):
    done = lingbi("smoke", "--json", state_dir=turbomind["state_dir"])
    assert done.returncode == 0, done.stderr


def test_both_engines_give_the_same_greedy_answers(turbomind, demo_server):
    answers = [
        score_model(UrlModel(report["url"] + "/v1", report["key"]), threads=4) for report in (turbomind, demo_server)
    ]
    same = [first.answer == second.answer for first, second in zip(*answers, strict=True)]
    assert sum(same) / len(same) >= EQUAL_ANSWERS
    right = [verdict.fault is None for verdict in answers[0]]
    assert sum(right) / len(right) >= PASS_MARK


def test_a_killed_worker_comes_back(turbomind):
    (worker,) = Supervisor(turbomind["state_dir"]).workers_left()
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)

    assert wait_until(lambda: answers(turbomind["url"] + "/ready"), 120)
    assert lingbi("smoke", state_dir=turbomind["state_dir"]).returncode == 0


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
def test_random_weights_of_vl_7b_have_the_tutorials_prompt_tokens(tmp_path):
    folder = tmp_path / "internlm2-chat v1.0" / "vl model"
    make(PUBLISHED / "internlm-xcomposer2-vl-7b", PUBLISHED / "tokenizer.model", folder, seed=0)
    with running_server(tmp_path / "state", "--model", f"{folder}/", "--engine", "turbomind"):
        done = lingbi("smoke", "--json", state_dir=tmp_path / "state")
    checks = {check["name"]: check for check in json.loads(done.stdout.splitlines()[-1])["checks"]}
    assert done.returncode == 0 and checks["prompt-tokens"]["detail"] == "1372"
