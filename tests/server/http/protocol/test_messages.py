"""What the model reads of a conversation in the roles and parts of the OpenAI API."""

import pytest
from pydantic import ValidationError

from lingbi.http.protocol.faults import place_of
from lingbi.http.protocol.requests import ChatRequest

ASK = {"role": "user", "content": "weather?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Xi\'an"}'}}


def read(*messages) -> list[tuple]:
    return [(turn.role, turn.content) for turn in ChatRequest(model="", messages=list(messages)).turns]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_developer_is_a_system(role):
    assert read({"role": role, "content": "Be short."}, ASK) == [("system", "Be short."), ("user", "weather?")]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({}, ""),
        ({"content": None}, ""),
        ({"content": "sunny"}, "sunny"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]}, "a\nno"),
        ({"content": None, "refusal": "no"}, "no"),
        ({"content": None, "tool_calls": [CALL]}, 'weather({"place": "Xi\'an"})'),
        ({"tool_calls": [{"function": {"name": "now", "arguments": None}}]}, "now()"),
        ({"tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}}]}, "run(ls)"),
        ({"content": "Let me see.", "function_call": CALL["function"]}, 'Let me see.\nweather({"place": "Xi\'an"})'),
    ],
)
def test_what_an_earlier_answer_said(answer, text):
    assert read(ASK, {"role": "assistant"} | answer, ASK)[1] == ("assistant", text)


def test_a_tools_result_is_read_as_text_with_the_functions_name():
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    by_id = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]}
    assert read(ASK, called, by_id)[2] == ("user", "Result of weather:\nsunny")
    assert read(ASK, by_id | {"tool_call_id": "unknown"})[1] == ("user", "Result of the tool:\nsunny")
    custom = {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    called = {"role": "assistant", "tool_calls": [CALL, custom]}
    assert read(ASK, called, {"role": "tool", "tool_call_id": "c2", "content": "x"})[2] == ("user", "Result of run:\nx")
    older = {"role": "function", "name": "weather", "content": "sunny"}
    assert read(ASK, older)[1] == ("user", "Result of weather:\nsunny")


@pytest.mark.parametrize(
    ("call", "place"),
    [
        ({}, "function"),
        ({"function": {}}, "function.name"),
        ({"function": {"function": 1}}, "function.name"),
        ({"type": "custom"}, "custom"),
        ({"type": "custom", "custom": {"input": "ls"}}, "custom.name"),
    ],
)
def test_a_call_that_is_not_whole_is_refused_by_its_place(call, place):
    data = {"model": "", "messages": [ASK, {"role": "assistant", "tool_calls": [call]}]}
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate(data)
    assert place_of(caught.value.errors()[0]["loc"], data) == f"messages[1].tool_calls[0].{place}"


def test_a_text_is_one_question():
    assert [turn.content for turn in ChatRequest(model="", messages="hello").turns] == ["hello"]


def test_parts_of_a_user_stay_parts():
    parts = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "a", "detail": "original"}}]
    ((role, content),) = read({"role": "user", "content": parts})
    assert role == "user" and [part.type for part in content] == ["text", "image_url"]
