"""No body holds up the event loop or takes memory far beyond its size, and each that is refused is told why."""

import json
import random
import subprocess
import sys

import pytest

from lingbi.api_errors import BadRequest, TooLong
from lingbi.http.bodies import INLINE_BYTES, Arriving, parsed
from lingbi.http.protocol.json_reading import TEXT_BYTES, VALUES, read_json
from lingbi.http.protocol.requests import ChatRequest
from tests.conftest import ROOT
from tests.server.http.body_costs import LAG_S

FACTOR, BESIDE_BYTES = 3, 12 << 20  # a request's values take a few MiB as Python objects, whatever their text takes
LONG, BAD, UNKNOWN = "context_length_exceeded", "invalid_value", "model_not_found"
MANY, MUCH, SESSION = (
    f"more than {VALUES} values",
    f"more than {TEXT_BYTES} bytes",
    "maximum context length is 4096 tokens",
)
# {name in body_costs.BODIES: (status, code, words of the sentence)}
TOLD = {
    "a million integers": (400, BAD, MANY),
    "a million parts": (400, BAD, MANY),
    "a million empty lists": (400, BAD, MANY),
    "a million prompts": (400, BAD, MANY),
    "a million stop words": (400, BAD, MANY),
    "a million items": (400, BAD, MANY),
    "a million tools": (400, BAD, MANY),
    "wide metadata": (400, BAD, MANY),
    "wide tools": (400, BAD, MANY),
    "as many errors as values": (400, BAD, "messages[0].content[0].text: is needed"),
    "a long text": (400, LONG, MUCH),
    "a long text in parts": (400, LONG, MUCH),
    "a text that parses": (400, LONG, SESSION),
    "a text of emoji": (400, LONG, "of the prompt's"),
    "letters beyond ASCII": (400, LONG, "of the prompt's"),
    "a text of quotation marks": (400, BAD, "quotation marks"),
    "a text of backslashes": (400, LONG, MUCH),
    "a long prompt": (400, LONG, MUCH),
    "many prompts": (400, LONG, SESSION),
    "a long question": (400, LONG, MUCH),
    "long instructions": (400, LONG, SESSION),
    "a long stop word": (400, LONG, MUCH),
    "a stop word that parses": (400, BAD, "stop: holds at most 1024 characters"),
    "a long model name": (400, LONG, MUCH),
    "a model name that parses": (404, UNKNOWN, "is not served here"),
    "a long user": (400, BAD, "user: holds at most 256 characters"),
    "a long role": (400, BAD, "'role' must be one of"),
    "a long number of answers": (400, BAD, "n is not served"),
    "a wide number of answers": (400, BAD, "n is not served"),
    "a long tool name": (400, BAD, "holds at most 256 characters"),
    "a tool called often": (400, LONG, SESSION),
    "a huge key": (400, LONG, MUCH),
    "a huge key like a URL": (400, BAD, "the name of a field has"),
    "deep lists": (400, BAD, MANY),
    "deep objects": (400, BAD, MANY),
    "keys twice": (400, BAD, MANY),
    "messages twice": (400, BAD, MANY),
    "blanks": (400, LONG, MUCH),
    "a large exponent": (400, BAD, "temperature: must be a finite number"),
    "a large exponent of a whole number": (400, BAD, "seed: must be a finite number"),
    "a million digits": (400, BAD, "number out of range"),
    "4000 digits": (400, BAD, "temperature: must be a number"),
    "a million decimals": (400, BAD, "temperature: must be at most 2"),
    "a lone surrogate": (400, BAD, "not valid JSON"),
    "half a string": (400, BAD, "not valid JSON"),
    "no UTF-8": (400, BAD, "not valid JSON"),
    "zeros": (400, LONG, MUCH),
    "a name with NUL": (404, UNKNOWN, "is not served here"),
    "a URL of text": (400, BAD, "holds what no data: URL does"),
    "a URL with a control character": (400, BAD, "not valid JSON"),
    "a URL that is no base64": (400, "invalid_image", "not valid base64"),
    "a URL whose last character is no base64": (400, "invalid_image", "not valid base64"),
    "a URL with escaped slashes": (400, "invalid_image", "not valid base64"),
    "URLs in thousands": (400, "invalid_image", "1024 pictures"),
    "many long URLs": (400, "invalid_image", "140 pictures"),
    "messages that fit": (400, LONG, SESSION),
    "items that fit": (400, LONG, SESSION),
    "calls that fit": (400, LONG, SESSION),
    "deep tools": (200, None, None),
    "tools that fit": (200, None, None),
    "large tools that fit": (200, None, None),
}


@pytest.fixture(scope="module")
def costs():
    """What these bodies cost a process of their own: {name: row}."""
    command = [sys.executable, "-m", "tests.server.http.body_costs", *TOLD]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", TOLD)
def test_a_body_is_told_what_is_wrong_with_it_without_holding_up_others(costs, name):
    row, (status, code, words) = costs[name], TOLD[name]
    assert (row["status"], row["code"]) == (status, code), row
    assert words is None or (words in row["sentence"] and len(row["sentence"]) <= 500), row
    assert row["lag_s"] <= LAG_S and row["grown_bytes"] <= FACTOR * row["bytes"] + BESIDE_BYTES, row


def arrived(content: bytes):
    """The content as it comes from a network."""
    arriving = Arriving(64 << 20)
    for begin in range(0, len(content), 65_536):
        arriving.add(content[begin : begin + 65_536])
    return arriving.whole()


HEAD = 120  # in which the URL begins
PLAIN = '{"model": "m", "messages": [1, {"a": null}], "text": "%s"}'


@pytest.mark.parametrize("size", [0, INLINE_BYTES, 300_000, TEXT_BYTES, 5_000_000])
@pytest.mark.parametrize("word", ["abcd", "\\/", "\\n", "\\u0041", "\\\\", '\\"', "\\\\\\\\x"])
def test_a_url_is_what_the_standard_library_reads(size, word):
    """Taken out or not, and in pieces or not."""
    url = "data:" + word * (size // len(word))
    text = PLAIN % url
    if word == '\\"' and size > 100_000:
        url = "data:" + '\\"' * 30_000 + "x" * size  # more quotation marks are refused
        text = PLAIN % url
    assert read_json(arrived(text.encode())) == json.loads(text)


def test_urls_stand_in_their_places_among_others():
    urls = [f"data:{number}" + "A" * 100_000 for number in range(40)]
    value = {"a": urls[:20], "b": [{"c": url} for url in urls[20:]], "d": "data:", "e": ["x" * 5000] * 50}
    assert read_json(arrived(json.dumps(value).encode())) == value
    assert read_json(arrived(json.dumps(urls[0]).encode())) == urls[0]


def test_letters_beyond_ascii_stay_themselves_escaped_or_not():
    """pydantic_core 2.18's from_json gives their bytes where they are escaped."""
    value = {
        "model": "a\u4e2d\u00e9\U0001f642",
        "messages": "data:\u4e2d" + "A" * 3_000_00 + "\u4e2d",
        "\u4e2d": "\u4e2d",
    }
    for escaped in (True, False):
        content = json.dumps(value, ensure_ascii=escaped).encode()
        assert read_json(arrived(content)) == read_json(b"\xef\xbb\xbf" + content) == value


def test_spoilt_bodies_are_refused_as_the_parser_refuses_them():
    """Cut anywhere or with a byte changed, a body with long URLs reads as the standard library reads it, or is refused."""
    rng = random.Random(5)
    whole = (PLAIN % ("data:" + "A\\/" * 40_000)).encode()
    for _ in range(300):
        place = rng.choice((rng.randrange(HEAD), rng.randrange(len(whole)), len(whole) - rng.randrange(1, 40)))
        spoilt = whole[:place] + rng.choice((b"", b'"', b"\\", b"\x01", b"[", b",")) + whole[place + 1 :]
        padded = spoilt + b" " * (TEXT_BYTES - 50_000)  # so that its URL is taken out
        try:
            found = read_json(padded)
        except TooLong:
            assert place < HEAD or loaded(spoilt) is None  # the URL is text now, since it begins otherwise
        except BadRequest:
            assert loaded(spoilt) is None
        else:
            assert found == loaded(spoilt)


def loaded(text: bytes):
    """What the standard library reads; None where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_nothing_can_pass_for_a_url_that_was_taken_out():
    urls = ["data:" + "A" * 100_000] * 30
    value = {"a": urls, "b": "0" * 32 + "0", "c": "0"}
    assert read_json(json.dumps(value).encode()) == value


def test_a_body_has_its_turns_when_it_is_read():
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
    assert "turns" in vars(parsed(body, ChatRequest))
