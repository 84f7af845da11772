"""/v1/responses: the same answers as chat completions, in the form that newer clients ask for."""

import json

import httpx
import pytest

from lingbi.images.scenes import Scene, Thing, find_fault
from lingbi.smoke.checks import data_url
from tests.client import QUESTION, http

RESPONSES = "/v1/responses"
# Three things, so that the answer is long enough to come in parts on a busy machine.
SCENE = Scene(
    (
        Thing("blue", "star", 0.2, 0.2, 0.3),
        Thing("red", "circle", 0.8, 0.2, 0.3),
        Thing("green", "square", 0.5, 0.8, 0.3),
    )
)


def asked(**options) -> dict:
    parts = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": data_url(SCENE)}]
    return {"input": [{"role": "user", "content": parts}], "temperature": 0, "max_output_tokens": 80} | options


@pytest.fixture
def respond(demo_server):
    def respond(**options) -> httpx.Response:
        with http(demo_server) as client:
            return client.post(RESPONSES, json=asked(model=demo_server["model"]) | options)

    return respond


def events_of(response: httpx.Response) -> list[tuple[str, dict]]:
    """(name, data) of each event."""
    blocks = [block.splitlines() for block in response.text.strip().split("\n\n")]
    named = [block for block in blocks if block[0].startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in named]


def test_a_picture_is_answered_by_content_and_nothing_is_stored(respond):
    answer = respond(metadata={"mine": "1"}, instructions="You see pictures.").json()
    (item,) = answer["output"]
    assert find_fault("things", SCENE, item["content"][0]["text"]) is None, answer
    assert (answer["object"], answer["status"], answer["store"], answer["error"]) == (
        "response",
        "completed",
        False,
        None,
    )
    assert answer["metadata"] == {"mine": "1"} and item["role"] == "assistant" and item["status"] == "completed"
    usage = answer["usage"]
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"] and usage["output_tokens"] > 5


def test_the_events_come_in_the_references_order_and_make_the_whole_answer(respond):
    events = events_of(respond(stream=True))
    names = [name for name, _ in events]
    deltas = names.count("response.output_text.delta")
    assert deltas > 1 and names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert all(data["type"] == name for name, data in events)
    text = "".join(data["delta"] for name, data in events if name == "response.output_text.delta")
    last = events[-1][1]["response"]
    assert text == last["output"][0]["content"][0]["text"] == respond().json()["output"][0]["content"][0]["text"]
    assert last["usage"]["output_tokens"] > 5 and len({data.get("item_id") for _, data in events} - {None}) == 1


def test_an_answer_that_was_cut_is_incomplete(respond):
    answer = respond(max_output_tokens=2).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert events_of(respond(max_output_tokens=2, stream=True))[-1][0] == "response.incomplete"


def test_a_conversation_with_calls_of_tools_is_read(respond):
    question = asked()["input"][0]
    items = [
        question,
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "sunny"}]},
        question,
    ]
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    answer = respond(input=items, tools=[tool], tool_choice="auto").json()
    assert find_fault("things", SCENE, answer["output"][0]["content"][0]["text"]) is None, answer
    assert respond(input="hello").json()["output"][0]["content"][0]["text"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"previous_response_id": "resp-1"}, "previous_response_id"),
        ({"conversation": "conv-1"}, "conversation"),
        ({"background": True}, "background"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_is_not_served_is_refused_by_name(respond, options, param):
    response = respond(**options)
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == param and param in error["message"], error


def test_what_changes_nothing_is_taken(respond):
    options = {"store": True, "background": False, "truncation": "disabled", "previous_response_id": None}
    answer = respond(**options, text={"format": {"type": "text"}, "verbosity": "low"}, reasoning={"effort": "low"})
    assert answer.status_code == 200 and answer.json()["store"] is False


def test_faults_are_those_of_chat(respond):
    assert respond(model="gpt-9").json()["error"]["code"] == "model_not_found"
    assert respond(input="x " * 20000).json()["error"]["code"] == "context_length_exceeded"
    bad = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]
    for stream in (False, True):
        assert respond(input=bad, stream=stream).json()["error"]["code"] == "invalid_image"
