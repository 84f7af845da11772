"""Which form a request asks for, and what it may not ask for: a 400 that names the field."""

import json

import pytest

from lingbi.engine.grammar.forms import ANY_OBJECT, Form
from lingbi.http.protocol.requests import ChatRequest, CompletionRequest
from lingbi.http.protocol.responses import ResponseRequest
from tests.server.conftest import KEY

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}


def chat(**options) -> dict:
    return {"model": "model", "messages": "hello"} | options


FORMS = [
    ({}, None),
    ({"response_format": None}, None),
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, Form("schema", ANY_OBJECT, "response_format")),
    ({"response_format": JSON_SCHEMA}, Form("schema", SCHEMA, "response_format.json_schema.schema", True)),
    ({"guided_json": SCHEMA}, Form("schema", SCHEMA, "guided_json", True)),
    ({"guided_json": json.dumps(SCHEMA)}, Form("schema", SCHEMA, "guided_json", True)),
    ({"guided_regex": "[0-9]+"}, Form("regex", "[0-9]+", "guided_regex")),
    ({"guided_choice": ["yes", "no"]}, Form("choice", ["yes", "no"], "guided_choice")),
]


@pytest.mark.parametrize(("options", "form"), FORMS)
def test_the_form_of_a_request(options, form):
    assert ChatRequest.model_validate(chat(**options)).form == form
    assert CompletionRequest.model_validate({"model": "model", "prompt": "a"} | options).form == form
    assert ResponseRequest.model_validate({"model": "model", "input": "a"} | options).form == form


def test_without_strict_a_schema_is_held_to_as_far_as_it_can_be():
    asked = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    assert ChatRequest.model_validate(chat(response_format=asked)).form.is_strict is False


def test_responses_have_their_form_in_text():
    asked = ResponseRequest.model_validate(
        {"model": "model", "input": "a", "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}}
    )
    assert asked.form == Form("schema", SCHEMA, "text.format.schema", False)


BAD = [
    (CHAT, chat(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (CHAT, chat(response_format={"type": "json_schema", "json_schema": {}}), "response_format.json_schema.schema"),
    (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"schema": [1]}}), "response_format.json_schema.schema"),
    (CHAT, chat(response_format={"type": "xml"}), "response_format.type"),
    (CHAT, chat(response_format="json"), "response_format"),
    (CHAT, chat(guided_json="{"), "guided_json"),
    (CHAT, chat(guided_json=[1]), "guided_json"),
    (CHAT, chat(guided_json={"format": []}), "guided_json.format"),
    (CHAT, chat(guided_json={"const": 1 << 70}), "guided_json.const"),
    (CHAT, chat(guided_json='{"const": "\\ud800"}'), "guided_json"),
    (CHAT, chat(guided_json='{"const": NaN}'), "guided_json"),
    (CHAT, chat(guided_json={"multipleOf": 1000003}), "guided_json.multipleOf"),
    (CHAT, chat(guided_regex=5), "guided_regex"),
    (CHAT, chat(guided_regex=""), "guided_regex"),
    (CHAT, chat(guided_regex="a" * 5000), "guided_regex"),
    (CHAT, chat(guided_choice=[]), "guided_choice"),
    (CHAT, chat(guided_choice=[""]), "guided_choice[0]"),
    (CHAT, chat(guided_choice=["a"] * 1025), "guided_choice"),
    (CHAT, chat(guided_choice=["a"], guided_regex="a"), "guided_choice"),
    (CHAT, chat(response_format=JSON_SCHEMA, guided_json=SCHEMA), "guided_json"),
    (CHAT, chat(response_format=JSON_SCHEMA, logprobs=True), "logprobs"),
    (CHAT, chat(response_format=JSON_SCHEMA, n=2), "n"),
    (RESPONSES, {"model": "model", "input": "a", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    (RESPONSES, {"model": "model", "input": "a", "text": {"format": {"type": "grammar"}}}, "text.format.type"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_no_answer_can_have_is_a_400_that_names_the_field(ready, path, body, param):
    response = ready.post(path, headers=KEY, json=body)
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == param, error
    assert error["message"].startswith(param)
