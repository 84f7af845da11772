"""What /metrics says before and after good, bad and leaving requests, for every family that docs/server.md names."""

import concurrent.futures
import re
from importlib.metadata import version

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lingbi.demand.record import Record
from lingbi.http.metrics import Demand, Metrics
from lingbi.launch.supervision import wait_until
from lingbi.model.catalogue import DEMO_SERVED_NAME
from lingbi.smoke.checks import turn
from tests.client import CHAT, SCENES, body, fault, http, question
from tests.conftest import ROOT, running_worker

CELLS = re.compile(r"^\| `lingbi_(\w+?)(?:_total|_info)?`", re.M)
MODEL = {("model", DEMO_SERVED_NAME)}
ENDLESS = {"max_tokens": 3000, "ignore_eos": True, "stream": True}
# One answer at a time, so that a second request waits.
SMALL = {"LINGBI_CPU_SEQUENCES": "1", "LINGBI_QUEUE_LIMIT": "1", "LINGBI_WATCHDOG_INTERVAL_S": "600"}


def read(server) -> dict:
    """{(sample's name without lingbi_, its labels besides the model, which each of them has): value}."""
    text = httpx.get(server["url"] + "/metrics", trust_env=False).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    own = [sample for sample in samples if sample.name.startswith("lingbi_")]
    assert {sample.labels["model"] for sample in own} == {DEMO_SERVED_NAME}
    return {(sample.name.removeprefix("lingbi_"), labels_of(sample)): sample.value for sample in own}


def labels_of(sample) -> tuple:
    kept = sample.labels.items() if sample.name == "lingbi_model_info" else sample.labels.items() - MODEL
    return tuple(sorted(kept))


class Change:
    """The metrics before and after; a sample that was not there was 0."""

    def __init__(self, before: dict, after: dict):
        self.before, self.after = before, after

    def __call__(self, name: str, **labels) -> float:
        key = (name, tuple(sorted(labels.items())))
        return self.after[key] - self.before.get(key, 0)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a worker told at its start, in the middle of a long answer with another waiting, and after all."""
    state_dir = tmp_path_factory.mktemp("metrics") / "state"
    with running_worker(state_dir, **SMALL):
        pass  # killed: the next is its successor
    with running_worker(state_dir, **SMALL) as server, http(server) as client:
        before = read(server)
        usages = [ask(client, server, scene) for scene in SCENES[:2]]
        usages.append(ask(client, server, SCENES[0]))  # the same again: goes on in its kept session
        usages.append(ask(client, server, SCENES[0], stream=True))
        assert client.post(CHAT, json=body(server, [turn("x")], temperature=9)).status_code == 400
        assert client.post(CHAT, json=body(server, [turn("x", "/etc/passwd")])).status_code == 400
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        middle, status, usage = leave_while_another_waits(client, server)
        assert status == 429
        assert wait_until(lambda: read(server)["requests_inside", ()] == 0, 10)
        yield Change(before, read(server)), middle, [item for item in [*usages, usage] if item]


def ask(client, server, scene, stream: bool = False) -> dict | None:
    response = client.post(CHAT, json=question(server, scene, stream=stream))
    if stream:
        assert response.text.endswith("data: [DONE]\n\n")
        return None
    assert fault(scene, response) is None
    return response.json()["usage"]


def leave_while_another_waits(client, server) -> tuple:
    """(metrics while one answer runs and one waits, the status of a third, the waiting one's usage); the first leaves."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with client.stream("POST", CHAT, json=question(server, SCENES[5], **ENDLESS)) as response:
            lines = response.iter_lines()  # kept: an iterator that goes away closes its response
            next(lines)
            waiting = pool.submit(ask, client, server, SCENES[6])
            assert wait_until(lambda: read(server)["queue_depth", ()] == 1, 10)
            middle = read(server)
            status = client.post(CHAT, json=question(server, SCENES[7])).status_code
        return middle, status, waiting.result()


def test_requests_and_refusals_are_counted_by_what_they_came_to(told):
    change, _, _ = told
    assert change("requests_total", route=CHAT, status="200") == 5
    assert change("requests_total", route=CHAT, status="400") == 2
    assert change("requests_total", route="/v1/models", status="401") == 1
    assert change("requests_total", route=CHAT, status="429") == 1
    assert change("requests_total", route=CHAT, status="499") == 1 == change("abandoned_requests_total")
    for reason in ("invalid_value", "url", "invalid_api_key", "queue_full"):
        assert change("refused_requests_total", reason=reason) == 1, reason
    assert change("rejected_pictures_total", reason="url") == 1


def test_the_queue_and_what_is_inside_are_told_while_they_last(told):
    change, middle, _ = told
    assert (middle["queue_depth", ()], middle["requests_inside", ()], middle["sessions", ()]) == (1, 2, 1)
    assert middle["kv_cache_tokens", ()] > 36
    assert [change.after[name, ()] for name in ("queue_depth", "requests_inside", "sessions", "kv_cache_tokens")] == [
        0
    ] * 4
    assert change.after["kv_cache_capacity_tokens", ()] == 4096
    assert 0 < change.after["kept_sessions", ()] <= 4 and change.after["kv_cache_kept_tokens", ()] > 36


def test_tokens_are_those_that_the_answers_told_of(told):
    change, _, usages = told
    asked, made = (sum(usage[f"{side}_tokens"] for usage in usages) for side in ("prompt", "completion"))
    prompt = usages[0]["prompt_tokens"]
    assert change("prompt_tokens_total") == asked + 2 * prompt  # the streamed and the left one, alike in length
    assert change("group_tokens_total", group="", kind="prompt") == change("prompt_tokens_total")
    assert made + usages[0]["completion_tokens"] < change("completion_tokens_total")
    assert prompt - 1 <= change("reused_prompt_tokens_total") <= 2 * prompt


def test_times_are_observed_once_for_what_they_time(told):
    change, _, _ = told
    expected = {
        "queue_wait_seconds": 6,
        "time_to_first_token_seconds": 6,
        "time_per_output_token_seconds": 5,
        "picture_decode_seconds": 6,
        "picture_encode_seconds": 6,
    }
    assert {name: change(f"{name}_count") for name in expected} == expected
    for name in expected:
        assert 0 < change(f"{name}_sum") < 600, name
    assert change("queue_wait_seconds_sum") > change("queue_wait_seconds_bucket", le="0.005") / 1000


def test_the_encoders_memory_is_counted(told):
    change, _, _ = told
    assert change("picture_cache_misses") == 4 and change("picture_cache_hits") == 2
    assert change("picture_cache_bytes") > 0


def test_the_worker_tells_what_it_is_and_why_it_was_started_again(told):
    change, _, _ = told
    after = change.after
    assert after["worker_restarts_total", (("reason", "crashed"),)] == 1 and after["ready", ()] == 1
    (model,) = (dict(labels) for name, labels in after if name == "model_info")
    assert model == {"model": "internlm-xcomposer2-demo", "engine": "cpu", "session_len": "4096"}
    (build,) = (dict(labels) for name, labels in after if name == "build_info")
    assert build == {name: version(name) for name in ("lmdeploy", "torch", "transformers")}


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_the_documents_name_every_family_and_no_other(language, tmp_path):
    families = {family.name for family in Metrics().registry.collect() if family.name.startswith("lingbi_")}
    text = (ROOT / f"docs/server{language}.md").read_text()
    on_demand = {family.name for family in Demand(Record(tmp_path / "demand.json"), lambda: "asleep").collect()}
    short = [name.removeprefix("lingbi_model") for name in on_demand]  # they share a row
    assert [name for name in short if f"{name}`" not in text and f"{name}_total`" not in text] == []
    named = CELLS.findall(text)
    assert {f"lingbi_{name}" for name in named} - on_demand == families and len(named) == len(set(named))
