"""Answers in a form, as clients ask for them: whole and streamed, by every field, with the counts that are true."""

import json
import re

import httpx
import pytest

from lingbi.images.messages import user_message
from lingbi.images.scene_json import json_fault
from lingbi.launch.supervision import wait_until
from lingbi.smoke.checks import THREE, TWO, data_url
from lingbi.smoke.form_checks import list_of_objects, response_format
from tests.client import CHAT, SCENES, body, http, is_at_rest, metric, question
from tests.schemas import CHOICES, REGEXES, SCHEMAS, regex_fault, schema_fault

COUNTS = "lingbi_bound_tokens_total"
SEVERAL = [TWO, THREE]


@pytest.fixture
def client(demo_server):
    with http(demo_server) as client:
        yield client


def ask(client, server, **options) -> dict:
    response = client.post(CHAT, json=body(server, [{"role": "user", "content": "Answer."}], max_tokens=400, **options))
    assert response.status_code == 200, response.text
    return response.json()


def streamed(client, server, **options) -> tuple[str, str, dict]:
    asked = body(server, [{"role": "user", "content": "Answer."}], max_tokens=400, stream=True, **options)
    text, reason, usage = "", None, None
    with client.stream("POST", CHAT, json=asked | {"stream_options": {"include_usage": True}}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                usage = event["usage"] or usage
                for choice in event["choices"]:
                    text += choice["delta"].get("content", "")
                    reason = choice["finish_reason"] or reason
    return text, reason, usage


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_held_to(client, demo_server, name):
    answer = ask(client, demo_server, response_format=response_format(SCHEMAS[name]))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert schema_fault(SCHEMAS[name], json.loads(choice["message"]["content"])) is None


def test_a_stream_has_the_same_answer_and_the_same_counts(client, demo_server):
    options = {"response_format": response_format(SCHEMAS["scene"])}
    whole = ask(client, demo_server, **options)
    text, reason, usage = streamed(client, demo_server, **options)
    assert text == whole["choices"][0]["message"]["content"] and reason == "stop"
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("name", "properties", "asked"),
    [
        ("objects", ["colour", "shape", "position"], "What is in the picture? Answer as JSON."),
        ("objects", ["color", "shape", "position"], "List everything as JSON, with its color"),
        ("物体", ["颜色", "形状", "位置"], "图中有什么？请用JSON回答"),
    ],
)
@pytest.mark.parametrize("scene", SEVERAL + SCENES[:36:7], ids=lambda scene: f"{len(scene.things)} {scene.things[0]}")
def test_the_objects_of_a_picture_come_as_json_after_a_schema(client, demo_server, scene, name, properties, asked):
    form = response_format(list_of_objects(name, properties))
    message = user_message(asked, data_url(scene))
    answer = client.post(CHAT, json=body(demo_server, [message], max_tokens=200, response_format=form)).json()
    assert json_fault(scene.things, answer["choices"][0]["message"]["content"]) is None


def test_a_picture_is_described_in_the_form(client, demo_server):
    scene = SCENES[7]
    (thing,) = scene.things
    asked = question(demo_server, scene, guided_regex="(A|The) [a-z]+ [a-z]+[a-z .]*", max_tokens=64)
    text = client.post(CHAT, json=asked).json()["choices"][0]["message"]["content"]
    assert re.fullmatch("(A|The) [a-z]+ [a-z]+[a-z .]*", text) and thing.shape in text, text


@pytest.mark.parametrize("pattern", REGEXES.values(), ids=REGEXES)
def test_a_pattern_is_held_to(client, demo_server, pattern):
    content = ask(client, demo_server, guided_regex=pattern, temperature=1.0)["choices"][0]["message"]["content"]
    assert regex_fault(pattern, content) is None


def test_a_choice_and_any_json_object(client, demo_server):
    assert ask(client, demo_server, guided_choice=CHOICES)["choices"][0]["message"]["content"] in CHOICES
    found = ask(client, demo_server, response_format={"type": "json_object"}, stop=['"}'])
    assert found["choices"][0]["message"]["content"].startswith("{")


def test_completions_and_responses_take_forms_too(client, demo_server):
    asked = {"model": demo_server["model"], "prompt": ["a", "b"], "guided_choice": CHOICES, "max_tokens": 40}
    answers = client.post("/v1/completions", json=asked).json()["choices"]
    assert all(choice["text"] in CHOICES for choice in answers)
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMAS["flat object"], "strict": True}
    asked = {"model": demo_server["model"], "input": "Answer.", "text": {"format": form}, "max_output_tokens": 400}
    answer = client.post("/v1/responses", json=asked).json()
    assert schema_fault(SCHEMAS["flat object"], json.loads(answer["output"][0]["content"][0]["text"])) is None
    assert answer["text"]["format"] == form and answer["status"] == "completed"


def test_the_limit_cuts_and_says_so(client, demo_server):
    asked = body(
        demo_server, [{"role": "user", "content": "Answer."}], response_format=response_format(SCHEMAS["scene"])
    )
    answer = client.post(CHAT, json=asked | {"max_tokens": 7}).json()
    assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 7


def test_what_is_wrong_with_a_schema_is_a_400_that_names_its_place(client, demo_server):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "minLength": 3, "maxLength": 1}},
        "required": ["a"],
    }
    asked = body(demo_server, [{"role": "user", "content": "Answer."}], response_format=response_format(schema))
    error = client.post(CHAT, json=asked)
    assert error.status_code == 400
    assert error.json()["error"]["param"] == "response_format.json_schema.schema.properties.a"
    streamed_error = client.post(CHAT, json=asked | {"stream": True})
    assert streamed_error.json() == error.json()


def test_tokens_that_are_taken_back_are_counted_and_not_billed(client, demo_server):
    before = metric(demo_server, COUNTS), metric(demo_server, "lingbi_completion_tokens_total")
    answer = ask(client, demo_server, response_format=response_format(SCHEMAS["scene"]))
    after = metric(demo_server, COUNTS), metric(demo_server, "lingbi_completion_tokens_total")
    assert after[0] > before[0] and after[1] - before[1] == answer["usage"]["completion_tokens"]
    kinds = re.findall(
        rf'{COUNTS}{{kind="(\w+)"[^}}]*}} (\S+)', httpx.get(demo_server["url"] + "/metrics", trust_env=False).text
    )
    assert {name for name, _ in kinds} == {"forced", "chosen", "unlisted", "taken_back"}
    assert float(dict(kinds)["taken_back"]) > 0


def test_clients_that_leave_in_the_middle_leave_nothing_behind(client, demo_server):
    schema = {"type": "array", "items": {"type": "string", "minLength": 50}, "minItems": 100}
    asked = body(
        demo_server, [{"role": "user", "content": "Answer."}], response_format=response_format(schema), stream=True
    )
    for _ in range(4):
        with client.stream("POST", CHAT, json=asked | {"max_tokens": 3000}) as response:
            next(response.iter_lines())
    assert ask(client, demo_server, guided_choice=["yes"])["choices"][0]["message"]["content"] == "yes"
    assert wait_until(lambda: is_at_rest(demo_server), 5)
