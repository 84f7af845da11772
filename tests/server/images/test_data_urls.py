"""data: URLs, read as the WHATWG's data: URL processor reads them."""

import asyncio
import base64
import contextlib
import random
import time
import urllib.parse

import pytest

from lingbi.api_errors import ImageError
from lingbi.images.data_urls import decode_data_url, forgiving_base64, percent_decoded
from lingbi.images.loader import ImageDoor, ImageRules
from tests.server.images.bad_images import SCENE, draw, file_of

FILE = file_of(draw(SCENE))
TEXT = base64.b64encode(FILE).decode()
HEAD = "data:image/png;base64,"
LIMIT = 1 << 20

TAKEN = {
    "as it should be": HEAD + TEXT,
    "capitals": "DATA:IMAGE/PNG;BASE64," + TEXT,
    "no media type": "data:;base64," + TEXT,
    "parameters": "data:image/png;charset=utf-8;name=a%20b.png;base64," + TEXT,
    # OpenAI clients on the command line: `base64 file` breaks lines at 76 characters and ends with one more.
    "lines of 76": HEAD + base64.encodebytes(FILE).decode(),
    "lines of MIME": HEAD + base64.encodebytes(FILE).decode().replace("\n", "\r\n"),
    "a final newline": HEAD + TEXT + "\n",
    "a space after the comma": HEAD + " " + TEXT,
    "spaces in between": HEAD + " ".join(TEXT),
    "no padding": HEAD + TEXT.rstrip("="),
    "escaped": HEAD + urllib.parse.quote(TEXT, safe=""),
    "escaped in small letters": HEAD + TEXT.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
    "wholly escaped": HEAD + "".join(f"%{ord(letter):02x}" for letter in TEXT),
    "escaped line breaks": HEAD + TEXT[:100] + "%0D%0A" + TEXT[100:],
    "a space before base64": "data:image/png; base64," + TEXT,
    "spaces around base64": "data: image/png;  base64 ," + TEXT,
    "a newline in the head": "data:image/png;\nbase64," + TEXT,
    "blanks around it": " \t\r\n" + HEAD + TEXT + "\0 ",
    "a fragment": HEAD + TEXT + "#top",
    "no base64, escaped": "data:image/png," + urllib.parse.quote_from_bytes(FILE),
}
REFUSED = {
    "no comma": "data:image/png;base64",
    "no base64": "data:image/png," + TEXT,
    "another word": "data:image/png;base64url," + TEXT,
    "no semicolon": "data:image/pngbase64," + TEXT,
    "a tab before base64 is no space": "data:image/png;\fbase64," + TEXT,
    "URL-safe": HEAD + "-_" + TEXT,
    "padding too short": HEAD + "QUE==",
    "padding too long": HEAD + "QUFB====",
    "padding inside": HEAD + "QUE=QUFB",
    "one character left over": HEAD + "QUFBQ",
    "a half escape": HEAD + "QUF%4",
    "an escaped percent sign": HEAD + "%2541QUF",
    "a letter beyond ASCII": HEAD + "QUFé",
    "a lone surrogate": HEAD + "QUF\ud800",
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_browsers_take_is_taken(name):
    assert decode_data_url(TAKEN[name], LIMIT) == FILE
    (image,) = asyncio.run(ImageDoor(ImageRules()).load([TAKEN[name]]))
    assert image.size == draw(SCENE).size


@pytest.mark.parametrize("name", REFUSED)
def test_what_browsers_refuse_is_refused_by_name(name):
    with pytest.raises(ImageError) as caught:
        decode_data_url(REFUSED[name], LIMIT)
    assert caught.value.reason == "base64" and len(str(caught.value)) < 200


def test_url_safe_base64_is_refused_with_the_remedy():
    with pytest.raises(ImageError, match="send \\+ and / for - and _"):
        forgiving_base64([b"ab-_"], LIMIT)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"", b""),
        (b"YQ", b"a"),
        (b"YQ==", b"a"),
        (b"YR", b"a"),  # the four bits that are left over are discarded
        (b"YWI=", b"ab"),
        (b" Y\tW\nJ\fj\r", b"abc"),
    ],
)
def test_forgiving_base64(text, data):
    assert forgiving_base64([text], LIMIT) == data


def test_base64_may_come_in_any_pieces():
    generator = random.Random(1)
    for _ in range(2000):
        data = generator.randbytes(generator.randrange(20))
        text = base64.b64encode(data)
        text = text.rstrip(b"=") if generator.random() < 0.5 else text
        for _ in range(generator.randrange(4)):
            place = generator.randrange(len(text) + 1)
            text = text[:place] + generator.choice((b" ", b"\n", b"\r\n")) + text[place:]
        cuts = sorted(generator.randrange(len(text) + 1) for _ in range(generator.randrange(5)))
        pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert forgiving_base64(pieces, LIMIT) == data, pieces


@pytest.mark.parametrize("text", [b"QUFBQ", b"QUF=QUFB", b"QUFB===", b"Q===", b"QUFB=QUFB", b"="])
def test_padding_stands_at_the_end_of_whole_groups_only(text):
    """However it is cut, as in one piece."""
    for cut in range(len(text) + 1):
        with pytest.raises(ImageError) as caught:
            forgiving_base64([text[:cut], text[cut:]], LIMIT)
        assert caught.value.reason == "base64"


def test_percent_decoding_is_that_of_the_standard_library():
    generator = random.Random(0)
    for _ in range(2000):
        text = bytes(generator.choice(b"%%%%04aAfFgG +/") for _ in range(generator.randrange(12)))
        assert percent_decoded(text) == urllib.parse.unquote_to_bytes(text), text


@pytest.mark.parametrize("url", [HEAD + "QUFB", HEAD + "Q U F%42", "data:,%41%41%41"])
def test_the_limit_is_exact(url):
    assert decode_data_url(url, 3) == b"AAA"
    with pytest.raises(ImageError) as caught:
        decode_data_url(url, 2)
    assert caught.value.reason == "bytes"


@pytest.mark.parametrize(
    "url",
    [
        HEAD + "%41" * 10_000_000,
        HEAD + " " * 30_000_000,
        "data:" + "; " * 15_000_000 + "base64,",
        "data:" + ";" + " " * 30_000_000 + "base64,",
        HEAD + "%" * 30_000_000,
        HEAD + "=" * 30_000_000,
    ],
    ids=["escapes", "blanks", "parameters", "spaces", "percent signs", "padding"],
)
def test_large_bodies_take_linear_time(url):
    start = time.process_time()
    with contextlib.suppress(ImageError):
        decode_data_url(url, LIMIT)
    assert time.process_time() - start < 3


def test_of_a_large_url_only_the_head_is_read_on_the_event_loop():
    """Blanks without end are no reason to look further; what a thread does later is not part of this."""
    with pytest.raises(ImageError, match="must begin with data:"):
        asyncio.run(ImageDoor(ImageRules()).load([" " * 30_000_000 + HEAD + TEXT]))
