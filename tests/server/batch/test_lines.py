"""The lines of a batch's input: what is told of each, whatever the file holds."""

import io
import json

import pytest

from lingbi.batch.lines import MAX_ERRORS, Bounds, Fault, Line, judge, split

CHAT = Bounds("/v1/chat/completions", most_lines=1000, line_bytes=2000)


def line(custom_id: str = "a", **fields) -> bytes:
    asked = {"custom_id": custom_id, "method": "POST", "url": CHAT.endpoint, "body": {"model": "demo", "messages": []}}
    return json.dumps(asked | fields).encode() + b"\n"


def judged(content: bytes, bounds: Bounds = CHAT) -> list:
    return list(judge(split(io.BytesIO(content), bounds.line_bytes), bounds))


def test_each_line_is_found_again_by_its_place():
    content = line("a") + b"\n  \n" + line("二") + line("c").rstrip(b"\n")
    found = judged(content)
    assert [(one.number, one.custom_id) for one in found] == [(1, "a"), (4, "二"), (5, "c")]
    for one in found:
        assert json.loads(content[one.place : one.place + one.size])["custom_id"] == one.custom_id


FAULTS = {
    "no JSON": (b"{oops\n", "invalid_json_line", None),
    "an array": (b"[1]\n", "invalid_line", None),
    "no custom_id": (json.dumps({"method": "POST"}).encode(), "invalid_line", "custom_id"),
    "an empty custom_id": (line(""), "invalid_line", "custom_id"),
    "a custom_id that is a number": (line(7), "invalid_line", "custom_id"),
    "another endpoint": (line(url="/v1/embeddings"), "invalid_url", "url"),
    "another method": (line(method="GET"), "invalid_url", "url"),
    "no model": (line(body={"messages": []}), "invalid_model", "body.model"),
    "a model that is none": (line(body={"model": 3}), "invalid_model", "body.model"),
    "a line that is too large": (line("x" * 100, body={"model": "m", "x": "y" * 3000}), "line_too_large", None),
    "a custom_id that PostgreSQL does not keep": (line("a\0b"), "invalid_line", "custom_id"),
    "a model that PostgreSQL does not keep": (line(body={"model": "a\0b"}), "invalid_model", "body.model"),
    "half of a character": (b'{"custom_id": "\\ud800"}\n', "invalid_json_line", None),
    "bytes that are no UTF-8": (b'{"custom_id": "\xff"}\n', "invalid_json_line", None),
}


@pytest.mark.parametrize(("content", "code", "param"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_with_a_line_is_told_with_its_number(content, code, param):
    first, fault, last = judged(line("first") + content.rstrip(b"\n") + b"\n" + line("last"))
    assert isinstance(first, Line) and isinstance(last, Line) and last.number == 3
    assert isinstance(fault, Fault) and (fault.code, fault.param, fault.line) == (code, param, 2)


TOLD = {
    "no JSON": (b"{oops\n", "the line is no JSON: key must be a string at column 2"),
    "an array": (b"[1]\n", "the line must be an object with custom_id, method, url and body (got an array)"),
    "no method": (b'{"custom_id": "a"}\n', "method: is needed"),
    "an empty custom_id": (line(""), "custom_id: must not be empty (got '')"),
    "a custom_id that is a number": (line(7), "custom_id: must be a string (got 7)"),
    "a custom_id that is long": (line("x" * 600), f"custom_id: holds at most 512 characters (got '{'x' * 60}')"),
    "a body that is a text": (line(body="x"), "body: must be an object (got 'x')"),
}


@pytest.mark.parametrize(("content", "sentence"), TOLD.values(), ids=TOLD)
def test_what_is_wrong_with_a_line_is_told_with_what_is_there_and_what_should_be(content, sentence):
    (fault,) = judged(content)
    assert fault.message == sentence


def test_a_byte_order_mark_at_the_front_is_passed_over():
    content = b"\xef\xbb\xbf" + line("a") + line("b")
    found = judged(content)
    assert [json.loads(content[one.place : one.place + one.size])["custom_id"] for one in found] == ["a", "b"]
    assert [fault.code for fault in judged(b"\xef\xbb\xbf\n")] == ["empty_file"]
    assert judged(line("a") + b"\xef\xbb\xbf" + line("b"))[1].code == "invalid_json_line"


def test_a_custom_id_stands_once():
    fault = judged(line("a") + line("b") + line("a"))[2]
    assert (fault.code, fault.line) == ("duplicate_custom_id", 3)


def test_a_file_that_is_none_is_told_by_its_first_lines():
    found = judged(b"x\n" * 5000, Bounds(CHAT.endpoint, 100_000, 2000))
    assert len(found) == MAX_ERRORS and {fault.code for fault in found} == {"invalid_json_line"}


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n"])
def test_an_empty_file_is_told(content):
    assert [fault.code for fault in judged(content)] == ["empty_file"]


def test_more_lines_than_are_allowed_end_the_reading():
    found = judged(b"".join(line(str(number)) for number in range(5)), Bounds(CHAT.endpoint, 3, 2000))
    assert [type(one) for one in found] == [Line] * 3 + [Fault] and found[-1].code == "too_many_lines"


def test_the_longest_line_that_is_allowed_is_taken_with_either_end():
    long = line("long", body={"model": "m", "x": ""})
    padded = line("long", body={"model": "m", "x": "y" * (CHAT.line_bytes + 1 - len(long))})
    assert len(padded) == CHAT.line_bytes + 1
    for content in (padded, padded[:-1] + b"\r\n", padded[:-1]):
        assert [type(one) for one in judged(content)] == [Line]
    assert judged(padded[:-3] + b' "}}\n' + line("next"))[0].code == "line_too_large"
