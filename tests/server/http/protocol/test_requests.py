"""What requests may hold, and how the rest is refused: by the field's name, with what to use instead."""

import json
import re

import pytest

from lingbi.http.protocol.requests import ChatRequest
from tests.server.conftest import KEY

CHAT = "/v1/chat/completions"


def body(**options) -> dict:
    return {"model": "model", "messages": [{"role": "user", "content": "hello"}]} | options


BAD_VALUES = {
    "temperature": [2.1, -0.1, "hot", []],
    "top_p": [1.1, -1, "x"],
    "top_k": [-2, 1.5],
    "max_tokens": [0, -1, 1.5, "few"],
    "n": [0, 2, "2"],
    "seed": ["x", 1 << 70],
    "stop": [1, ["a"] * 17, [1]],
    "stream": ["maybe", 2, []],
    "stream_options": [{"include_usage": True}],
    "repetition_penalty": [0, -1],
    "presence_penalty": [0.5],
    "frequency_penalty": [-0.5],
    "logit_bias": [{"5": 1}],
    "tools": ["weather", [1]],
    "tool_choice": ["required", {"type": "function", "function": {"name": "weather"}}],
    "function_call": [{"name": "weather"}],
    "response_format": [{"type": "xml"}, {"type": "json_schema", "json_schema": {}}],
    "guided_json": [[], "{"],
    "guided_choice": [[], [""], "yes"],
    "guided_regex": ["", 5],
    "guided_grammar": ["root ::= digit"],
    "structured_outputs": [{"choice": ["yes"]}],
    "min_tokens": [5],
    "min_p": [0.1],
    "stop_token_ids": [[2]],
    "best_of": [2],
    "echo": [True],
    "modalities": [["text", "audio"]],
    "continue_final_message": [True],
    "add_generation_prompt": [False],
    "truncate_prompt_tokens": [100],
    "min_new_tokens": [5],
    "documents": [[{"text": "x"}]],
    "logits_processors": [["x"]],
    "bad_words": [["cat"]],
    "regex": ["[0-9]+"],
    "ebnf": ["root ::= digit"],
    "grammar": ["root ::= digit"],
    "json_schema": [{"type": "object"}],
    "structural_tag": ["{}"],
    "top_logprobs": [21, 3],
    "messages": [
        None,
        [],
        {},
        [None],
        [[]],
        [{}],
        [{"role": "user"}],
        [{"role": "tool"}],
        [{"role": "judge", "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [[{"type": "text", "text": "x"}]]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "audio"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": "http://a/b.png"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": None}}]}],
        [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
    ],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_VALUES.items() for value in values]
)
def test_unusable_values_are_a_400_that_names_the_field(ready, field, value):
    response = ready.post(CHAT, headers=KEY, json=body(**{field: value}))
    error = response.json()["error"]
    assert response.status_code == 400 and error["type"] == "invalid_request_error", error
    assert error["param"].startswith(field) and field in error["message"]


TOLD = {
    "guided_json": ("{", "guided_json: must be a JSON Schema, or one as text (got '{')"),
    "guided_regex": ("", "guided_regex: must not be empty (got '')"),
    "guided_choice": ([""], "guided_choice[0]: must not be empty (got '')"),
    "stop": (5, "stop: must be a string or a list of strings (got 5)"),
}


@pytest.mark.parametrize("field", TOLD)
def test_values_are_refused_in_the_servers_own_words(ready, field):
    value, sentence = TOLD[field]
    assert ready.post(CHAT, headers=KEY, json=body(**{field: value})).json()["error"]["message"] == sentence


HARMLESS = {
    "temperature": "0.5",
    "max_tokens": 8.0,
    "max_completion_tokens": 10**30,
    "top_k": -1,
    "stream": "false",
    "stop": "END",
    "n": "1",
    "best_of": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": "0.0",
    "logit_bias": {},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "tools": [{"type": "function", "function": {"name": "weather"}}],
    "tool_choice": "auto",
    "function_call": "none",
    "guided_json": None,
    "min_tokens": 0,
    "stop_token_ids": [],
    "stream_options": None,
    "continue_final_message": False,
    "add_generation_prompt": True,
    "logits_processors": [],
    "messages": "hello",
}


@pytest.mark.parametrize("field", HARMLESS)
def test_what_changes_nothing_or_is_plain_is_taken(field):
    ChatRequest.model_validate_json(json.dumps(body(**{field: HARMLESS[field]})))


PLACES = {
    "messages[0].content[1].image_url": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": "a"}],
    "messages[0].content[0].image_url.url": [{"type": "image_url", "image_url": {}}],
    "messages[0].content[0].image_url.detail": [{"type": "image_url", "image_url": {"url": "a", "detail": "much"}}],
    "messages[0].content[0]": [{"type": "audio"}],
    "messages[0].content": 5,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_field_is_named_as_the_reference_names_it_and_without_types_of_python(ready, place):
    response = ready.post(CHAT, headers=KEY, json=body(messages=[{"role": "user", "content": PLACES[place]}]))
    error = response.json()["error"]
    assert error["param"] == place and error["message"].startswith(place + ": ")
    assert not re.search(r"union|constrained|list\[|validation", error["message"])


def test_limits_of_lists_are_told(ready):
    error = ready.post(CHAT, headers=KEY, json=body(stop=["a"] * 17)).json()["error"]
    assert error["message"] == "stop: holds at most 16 entries, got 17"


def test_what_is_not_served_says_what_to_use_instead(ready):
    error = ready.post(CHAT, headers=KEY, json=body(presence_penalty=0.5)).json()["error"]
    assert error["message"] == "presence_penalty is not served; use repetition_penalty (got 0.5)"


def test_of_several_fields_that_are_not_served_the_first_one_sent_is_named(ready):
    names = ("min_p", "guided_grammar", "best_of", "n", "echo")
    for first in names:
        others = {name: 0.5 for name in names if name != first}
        assert ready.post(CHAT, headers=KEY, json=body(**{first: 0.5}, **others)).json()["error"]["param"] == first
