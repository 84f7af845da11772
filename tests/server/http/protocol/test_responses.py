"""What /v1/responses takes, in the form of chat completions."""

import pytest

from lingbi.api_errors import BadRequest
from lingbi.http.protocol.responses import ResponseRequest

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
TEXT = {"type": "input_text", "text": "see"}
CALL = {"type": "function_call", "call_id": "c", "name": "look"}


def chat(*items):
    return ResponseRequest(model="model", input=list(items)).chat


@pytest.mark.parametrize(
    ("items", "place"),
    [
        ([{"role": "system", "content": [TEXT, IMAGE]}], "input[0].content[1]"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": [IMAGE]}], "input[1].content[0]"),
        ([CALL, {"type": "function_call_output", "call_id": "c", "output": [IMAGE]}], "input[1].output[0]"),
    ],
)
def test_an_image_outside_a_users_message_is_refused_and_not_passed_over(items, place):
    with pytest.raises(BadRequest) as caught:
        chat(*items)
    assert caught.value.param == place and place in str(caught.value)


def test_a_users_image_keeps_its_url_and_detail():
    (message,) = chat({"role": "user", "content": [TEXT, IMAGE | {"detail": "low"}]}).messages
    assert [part.type for part in message.content] == ["text", "image_url"]
    assert (message.content[1].image_url.url, message.content[1].image_url.detail) == (IMAGE["image_url"], "low")


def test_instructions_come_first_and_what_belongs_to_tools_is_text():
    request = ResponseRequest(
        model="model",
        instructions="Be brief.",
        input=[CALL | {"arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "a cat"}],
    )
    turns = [(turn.role, turn.content) for turn in request.chat.turns]
    assert turns == [("system", "Be brief."), ("assistant", "look({})"), ("user", "Result of look:\na cat")]
