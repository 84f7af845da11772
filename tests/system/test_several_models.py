"""Several models of one installation, natively behind the real gateway: each is asked by its name, and by content."""

import json
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from lingbi.launch.supervision import Supervisor, wait_until
from lingbi.model.catalogue import DEMO_SERVED_NAME
from lingbi.placement import record
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES, fault, http, question
from tests.conftest import DEMO, lingbi, running_stack
from tests.server.model.model_folders import edit_config

MODELS = [DEMO_SERVED_NAME, "shapes-a", "shapes-b"]
MIXED, AT_ONCE = 60, 12
PLAIN = {"LINGBI_CPU_THREADS": "1", "LINGBI_WATCHDOG_INTERVAL_S": "600"}


def named(folder, name: str):
    """The demo model under a name of its own: what it answers is judged by content too."""
    copy = shutil.copytree(DEMO, folder / name)
    edit_config(copy, lingbi_demo=None)
    return copy


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The demo and two folders; tests must leave all of them answering."""
    folder = tmp_path_factory.mktemp("several models")
    others = [argument for name in MODELS[1:] for argument in ("--model", str(named(folder, name)))]
    with running_stack(folder / "state", *others, **PLAIN) as report:
        yield report | {"state_dir": folder / "state"}


def told(client) -> dict[str, dict]:
    """{model: what /v1/models says of it}."""
    return {entry["id"]: entry["lingbi"] for entry in client.get("/v1/models").json()["data"]}


def worker_of(stack: dict, number: int) -> psutil.Process:
    found = Supervisor(stack["state_dir"]).workers_left()
    return next(process for process in found if process.environ()["LINGBI_WORKER"] == str(number))


def test_each_model_has_a_worker_and_is_offered_with_its_facts(stack):
    assert (stack["model"], stack["models"]) == (MODELS[0], MODELS)
    assigned = record.read(record.file_in(stack["state_dir"]))
    assert [each.model for each in assigned] == MODELS and all(each.memory_mib for each in assigned)
    with http(stack) as client:
        facts = told(client)
        assert sorted(facts) == sorted(MODELS)
        for model in facts.values():
            assert (model["state"], model["servers"], model["ready"], model["session_length"]) == ("ready", 1, 1, 4096)
        missing = client.post(CHAT, json=question(stack, SCENES[0], model="vl-8b"))
        assert missing.status_code == 404 and all(name in missing.text for name in MODELS)


def test_mixed_requests_are_answered_by_the_model_that_they_name(stack):
    asked = [(MODELS[number % 3], SCENES[number % len(SCENES)], number % 2 == 0) for number in range(MIXED)]
    with http(stack) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda each: answered(client, *each), asked))
    assert [answer for answer in answers if answer] == []
    for number, model in enumerate(MODELS):
        log = stack["state_dir"] / "logs" / f"worker-{number}.log"
        wait_until(lambda log=log: sum(answered_by(log).values()) >= MIXED // 3, 5)  # a line comes after its answer
        assert answered_by(log) == {model: MIXED // 3}


def answered_by(log) -> Counter:
    """Answers in a worker's log, by model."""
    found = [json.loads(line) for line in log.read_text().splitlines() if f'"path": "{CHAT}"' in line]
    return Counter(line["model"] for line in found if line["status"] == 200)


def answered(client, model: str, scene, streams: bool) -> str | None:
    """What is wrong with a model's answer about a scene, or None."""
    body = {"model": model, "messages": [turn(QUESTION, data_url(scene))], "max_tokens": 32, "temperature": 0}
    if not streams:
        response = client.post(CHAT, json=body)
        who = response.json().get("model")
        return fault(scene, response) or (f"{who} answered for {model}" if who != model else None)
    with client.stream("POST", CHAT, json=body | {"stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    events = [json.loads(line) for line in lines[:-1]]
    who = {event["model"] for event in events}
    return None if who == {model} and lines[-1] == "[DONE]" else f"{who} answered for {model}: {lines[-1]}"


def test_smoke_asks_every_model_by_name(stack):
    done = lingbi("smoke", "--json", state_dir=stack["state_dir"])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert sorted(report["model"].split(", ")) == sorted(MODELS)
    checked = Counter(check["model"] for check in report["checks"])
    assert sorted(checked) == sorted(MODELS) and checked[MODELS[0]] > checked[MODELS[1]] == checked[MODELS[2]] > 3


def test_metrics_and_readiness_tell_the_model(stack):
    for number, model in enumerate(MODELS):
        with http(stack | {"url": f"http://127.0.0.1:{stack['ports']['LINGBI_PORT'] + number}"}) as worker:
            assert worker.get("/ready").json()["model"] == model
            text = worker.get("/metrics").text
            assert set(re.findall(r"^lingbi_.*?[{,]model=\"([^\"]*)\"", text, re.M)) == {model}
            assert not re.search(r"^lingbi_\w+ ", text, re.M)


def test_a_worker_that_is_killed_takes_its_model_alone_away(stack):
    with http(stack) as client:
        worker_of(stack, 1).kill()
        statuses = Counter()
        for number in range(9):
            response = client.post(CHAT, json=question(stack, SCENES[number], model=MODELS[number % 3]))
            statuses[MODELS[number % 3], response.status_code] += 1
            if response.status_code == 503:
                assert int(response.headers["retry-after"]) > 0
        assert all(status == 200 or (model == MODELS[1] and status == 503) for model, status in statuses), statuses
        assert statuses[MODELS[1], 503] > 0 and statuses[MODELS[0], 200] == statuses[MODELS[2], 200] == 3
        assert wait_until(lambda: told(client)[MODELS[1]]["ready"] == 1, 120)
        asked = question(stack, SCENES[0], model=MODELS[1])
        assert wait_until(lambda: fault(SCENES[0], client.post(CHAT, json=asked)) is None, 30)
