"""What the router reads of a body: what the server reads of it, however large the body is and in whatever order."""

import contextlib
import json
import random
import time

import pytest

from lingbi.api_errors import BadRequest
from lingbi.http.protocol import json_reading, messages
from lingbi.http.protocol.json_reading import read_json
from lingbi_gateway.router import affinity, outlines
from lingbi_gateway.router.affinity import beginning
from lingbi_gateway.router.outlines import LONG_BYTES, QUOTES, TEXT_BYTES, VALUES, Unreadable, outline, outline_of_file

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
        b"[" + b'"",' * (VALUES + 1) + b'""]',
        b"[" + b"[],".ljust(TEXT_BYTES + 1) + b"1]",
    ],
    ids=range(11),
)
def test_what_no_server_takes_is_not_read(body):
    with pytest.raises(Unreadable):
        outline(body)


def test_the_bounds_are_the_servers_own():
    ours = outlines.TEXT_BYTES, outlines.VALUES, outlines.QUOTES, affinity.MESSAGES
    assert ours == (json_reading.TEXT_BYTES, json_reading.VALUES, json_reading.QUOTES, messages.MESSAGES_LIMIT)


def with_quotes(count: int, size: int) -> bytes:
    """A body of so many bytes; so many quotation marks are within its strings and at their ends."""
    begin, end = b'{"model": "a", "url": "data:' + b'\\"' * (count - 5), b'", "x": 0}'
    return begin + b"x" * (size - len(begin) - len(end)) + end


def test_a_large_body_may_have_as_many_quotation_marks_as_in_the_servers():
    for count, size in ((QUOTES, TEXT_BYTES + 1), (3 * QUOTES, TEXT_BYTES)):
        body = with_quotes(count, size)
        assert outline(body)["model"] == read_json(body)["model"] == "a"
    body = with_quotes(QUOTES + 1, TEXT_BYTES + 1)
    with pytest.raises(BadRequest):
        read_json(body)
    with pytest.raises(Unreadable):
        outline(body)


@pytest.mark.parametrize("commas", [0, 3 * VALUES])
def test_a_body_may_have_as_many_values_as_in_the_servers_however_many_commas_its_texts_have(commas):
    most, more = ({"text": "," * commas, "list": ["\\"] * count} for count in (VALUES - 2, VALUES - 1))
    assert outline(json.dumps(most).encode()) == read_json(json.dumps(most).encode()) == most
    with pytest.raises(BadRequest):
        read_json(json.dumps(more).encode())
    with pytest.raises(Unreadable):
        outline(json.dumps(more).encode())


ESCAPED = b'\\"'


@pytest.mark.parametrize(
    ("body", "most_ms"),
    [
        (b'{"x": "' + ESCAPED * 49_900 + b'"}', 30),
        (b'{"x": [' + b'"",' * 32_000 + b'""]}', 30),
        (b'{"messages": [' + b"{}," * 32_000 + b"{}]}", 30),
        (json.dumps({"messages": [{"role": "user", "content": 'an "x" ' * 30}] * 380}).encode(), 30),
        (b'{"x": "' + ESCAPED * 1_000_000 + b'"}', 500),
        (b'{"messages": [' + b"{}," * 600_000 + b"{}]}", 500),
        (b'{"x": [' + b",".join([b'"' + ESCAPED * (1 << 20) + b'"'] * 14) + b"]}", 500),
        (b'{"x": "' + b"\\" * (28 << 20) + b'"}', 2000),
    ],
    ids=["quotes", "strings", "messages", "conversation", "2 MB of quotes", "2 MB of messages", "28 MB", "backslashes"],
)
def test_no_body_keeps_the_router_busy(body, most_ms):
    """It reads them before any server has judged the key; those below 100 kB on its event loop."""
    took_ms = min(_milliseconds(body) for _ in range(3))
    assert took_ms < most_ms


def _milliseconds(body: bytes) -> float:
    began = time.thread_time()
    with contextlib.suppress(Unreadable):
        beginning(outline(body))
    return 1000 * (time.thread_time() - began)


def test_the_mark_of_a_long_string_tells_others_apart():
    def mark(text: str) -> str:
        return outline(json.dumps({"url": text}).encode())["url"]

    long = "x" * (3 * LONG_BYTES)
    assert mark(long) == mark(long)
    assert len({mark(long), mark("y" + long[1:]), mark(long[:-1] + "y"), mark(long + "x")}) == 4


@pytest.mark.parametrize(("times", "window", "piece"), [(30, outlines.WINDOW_BYTES, outlines.PIECE_BYTES), (3, 7, 16)])
def test_any_json_is_read_as_python_reads_it(monkeypatch, times, window, piece):
    """Strings of all lengths and with all escapes, before, between and after the long ones, and where a piece ends."""
    monkeypatch.setattr(outlines, "WINDOW_BYTES", window)
    monkeypatch.setattr(outlines, "PIECE_BYTES", piece)
    chance = random.Random(1)
    letters = ['"', "\\", "/", "\n", "a", "é", "模", "😀", " ", "{", "]"]

    def text(longest: int) -> str:
        return "".join(chance.choices(letters, k=chance.randrange(longest)))

    for _ in range(times):
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
