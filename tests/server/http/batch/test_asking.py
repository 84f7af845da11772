"""What a batch's line is asked with."""

import base64
import json

import pytest

from lingbi.http.batch.asking import body_of, size_of

PNG = b"\x89PNG\r\n"


def asked(body: dict) -> dict:
    return json.loads(body_of(json.dumps({"custom_id": "a", "body": body}).encode(), "m", read))


def read(file_id: str) -> bytes:
    if file_id != "file-1":
        raise LookupError(f"this key has no file {file_id!r}")
    return PNG


def test_a_line_is_whole_names_the_model_itself_and_says_nothing_of_its_turn():
    given = {"model": "an alias", "stream": True, "stream_options": {"include_usage": True}, "service_tier": "default"}
    assert asked(given) == {"model": "m", "stream": False}


def test_pictures_that_are_named_by_their_file_are_put_in():
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    chat = {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "file-1"}}, {"text": "file-1"}]}]}
    assert asked(chat)["messages"] == [
        {"content": [{"type": "image_url", "image_url": {"url": url}}, {"text": "file-1"}]}
    ]
    response = {"input": [{"content": [{"type": "input_image", "image_url": "file-1"}]}]}
    assert asked(response)["input"] == [{"content": [{"type": "input_image", "image_url": url}]}]


def test_a_file_that_its_owner_does_not_have_is_told():
    with pytest.raises(LookupError, match="no file 'file-2'"):
        asked({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "file-2"}}]}]})


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_lines_size_is_known_before_its_files_are_read(count):
    body = {"messages": [{"content": [{"image_url": {"url": "file-1"}}, {"text": "file-1"}] * count}], "n": [1, 2, 3]}
    told = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    line = json.dumps(told, separators=(",", ":")).encode()
    most = size_of(line, {"file-1": len(PNG)}.__getitem__)
    made = len(body_of(line, "m", read))
    assert made <= most <= made + 100 * (1 + count)
