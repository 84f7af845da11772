"""What the router reads of a body: what the server reads of it, however large the body is and in whatever order."""

import json
import random

import pytest

from lingbi.http.protocol.json_reading import read_json
from lingbi_gateway.router.outlines import LONG_BYTES, STRINGS, TEXT_BYTES, Unreadable, outline, outline_of_file

PICTURE = "data:image/png;base64," + "A" * (20 << 20)
LIKE_IT = '"model": "false", \\"model\\": \\\\"'


def question(**fields) -> dict:
    parts = [{"type": "text", "text": LIKE_IT}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    return {"messages": [{"role": "user", "content": parts}]} | fields


@pytest.mark.parametrize("is_first", [True, False])
def test_the_model_is_read_before_and_after_20_mb_of_picture(tmp_path, is_first):
    body = {"model": "true"} | question() if is_first else question(model="true")
    file = tmp_path / "body"
    file.write_text(json.dumps(body))
    found = outline_of_file(file)
    assert found["model"] == "true" and found["messages"][0]["content"][0]["text"] == LIKE_IT
    assert len(found["messages"][0]["content"][1]["image_url"]["url"]) < 100


def test_a_field_given_twice_counts_as_in_the_server():
    for filler in ("", "x" * (LONG_BYTES + 1)):
        body = f'{{"model": "first", "filler": "{filler}", "m\\u006fdel": "last"}}'.encode()
        assert outline(body)["model"] == read_json(body)["model"] == "last"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff\xfe{}",
        b"{" * 10_000,
        b'{"model": "a"',
        b'{"text": "' + b"x" * LONG_BYTES,
        b'{"text": "' + b"x" * LONG_BYTES + b'\\"',
        b'{"text": "' + b"\\" * (2 << 20),
        b'{"a": "b' + b"x" * (TEXT_BYTES // 2) + b'", "c": [' + b"1," * TEXT_BYTES + b"1]}",
        b"[" + b'"",' * (STRINGS + 1) + b'""]',
        b"[" + b"[],".ljust(TEXT_BYTES + 1) + b"1]",
    ],
    ids=range(11),
)
def test_what_no_server_takes_is_not_read(body):
    with pytest.raises(Unreadable):
        outline(body)


def test_the_mark_of_a_long_string_tells_others_apart():
    def mark(text: str) -> str:
        return outline(json.dumps({"url": text}).encode())["url"]

    long = "x" * (3 * LONG_BYTES)
    assert mark(long) == mark(long)
    assert len({mark(long), mark("y" + long[1:]), mark(long[:-1] + "y"), mark(long + "x")}) == 4


def test_any_json_is_read_as_python_reads_it():
    """Strings of all lengths and with all escapes, before, between and after the long ones."""
    chance = random.Random(1)
    letters = ['"', "\\", "/", "\n", "a", "é", "模", "😀", " ", "{", "]"]

    def text(longest: int) -> str:
        return "".join(chance.choices(letters, k=chance.randrange(longest)))

    for _ in range(30):
        value = {text(9): [text(50), {text(9): text(3 * LONG_BYTES)}, None, 1.5, True, text(9)] for _ in range(4)}
        body = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode()
        assert _short(outline(body)) == _short(json.loads(body))


def _short(value):
    """The value with what is or may be left out as its first letters."""
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return "long" if isinstance(value, str) and (value.startswith("long:") or len(value) > LONG_BYTES // 12) else value
