"""Reads a request's JSON in steps that are all short, however large the request is.

The parser holds the interpreter's lock until it returns, so a thread alone would not keep the event loop free. Pictures
come as `data:` URLs of many megabytes: these are taken out and read piece by piece. The rest is counted before it is
parsed, and it is small: more of it has no room in any session.
"""

import mmap
import secrets
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lingbi.api_errors import BadRequest, TooLong

TEXT_BYTES = 2 << 20  # of a request without its data: URLs; 16384 tokens of 20 escaped characters each
VALUES = 16384  # entries of lists and objects; 4096 messages have 12 288
QUOTES = 4 * VALUES
URL_BYTES = 64 << 10  # longer data: URLs are taken out
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SCHEME, HEAD_BYTES = b"data:", 64
QUOTE, BACKSLASH = b'"', b"\\"
PIECE_BYTES, WINDOW_BYTES = 256 << 10, 4096
ESCAPE_BYTES = len(r"\u0000")
SENTENCE_CHARACTERS = 300
# Not pydantic_core.from_json: version 2.18 gives a text with an escaped letter beyond ASCII as its bytes.
parse = TypeAdapter(Any).validate_json


Text = bytes | mmap.mmap  # JSON in memory


def read_json(body: Text) -> Any:
    """The value that a body holds.

    Raises BadRequest where it is no JSON or has too many values, and TooLong where its text is longer than any session.
    """
    mark = secrets.token_hex(16)  # no client can know it
    try:
        if len(body) <= TEXT_BYTES and _entries(body, 0, len(body)) <= VALUES:
            return parse(body[:].removeprefix(BYTE_ORDER_MARK))
        rest, places = Scan(body, mark).split()
        data = parse(rest.removeprefix(BYTE_ORDER_MARK))
        urls = [_unescaped(body, *place) for place in places]
    except ValidationError as error:
        why = error.errors()[0]["ctx"]["error"]
        raise BadRequest(f"the body is not valid JSON: {why}"[:SENTENCE_CHARACTERS]) from None
    return with_urls(data, mark, urls)


class Scan:
    """Walks through the strings of a body, and takes its long data: URLs out."""

    def __init__(self, body: Text, mark: str) -> None:
        self.body, self.mark = body, mark
        self.values = self.quotes = self.taken_bytes = 0

    def split(self) -> tuple[bytes, list[tuple[int, int]]]:
        """The body with `mark` and a number in the place of each URL, and where these stand, without their quotes.

        Raises BadRequest or TooLong where more is left than may be parsed.
        """
        rest, urls, copied, at = bytearray(), list[tuple[int, int]](), 0, 0
        while (begin := self._next_string(at)) is not None:
            end = self._end(begin)
            if end - begin > URL_BYTES and self._is_url(begin):
                if self.body[end + 1 : end + HEAD_BYTES].lstrip().startswith(b":"):
                    raise BadRequest(f"the name of a field has {end - begin} bytes; give it a short one")
                rest += self.body[copied:begin] + f"{self.mark}{len(urls)}".encode()
                urls.append((begin, end))
                self.taken_bytes += end - begin
                copied = end
            at = end + 1
        return bytes(rest + self.body[copied:]), urls

    def _next_string(self, at: int) -> int | None:
        """Where the next string begins, within its quotes."""
        quote = _next_quote(self.body, at)
        between = len(self.body) if quote < 0 else quote
        self.values += _entries(self.body, at, min(between, at + TEXT_BYTES))
        self._check(between)
        return None if quote < 0 else quote + 1

    def _end(self, begin: int) -> int:
        """The place of the quotation mark that ends a string."""
        at, is_url = begin, self._is_url(begin)
        while True:
            self.quotes += 1
            end = _next_quote(self.body, at)
            self._check(self.taken_bytes if is_url else end if end >= 0 else len(self.body))
            if end < 0:
                raise BadRequest("the body is not valid JSON: a string does not end")
            if _backslashes(self.body, at, end) % 2 == 0:
                return end
            at = end + 1

    def _check(self, place: int) -> None:
        """Refuse a body for what it has up to a place."""
        if self.values > VALUES or self.quotes > QUOTES:
            raise BadRequest(
                f"the body has more than {VALUES} values or {QUOTES} quotation marks, and no session holds as much; send less"
            )
        if place - self.taken_bytes > TEXT_BYTES:
            raise TooLong(
                f"the request has more than {TEXT_BYTES} bytes besides its pictures' data: URLs, and no session holds as "
                "much; shorten it"
            )

    def _is_url(self, begin: int) -> bool:
        return self.body[begin : begin + HEAD_BYTES].lstrip().lower().startswith(SCHEME)


def _entries(body: Text, begin: int, end: int) -> int:
    """An upper bound of the entries of lists and objects in a stretch."""
    stretch = body[begin:end]
    return sum(map(stretch.count, b",[{")) if stretch else 0


def _next_quote(body: Text, at: int) -> int:
    """The place of the next quotation mark; -1: there is none. It looks through copies of stretches, because mmap's own
    search is slow and holds the interpreter meanwhile."""
    size = WINDOW_BYTES
    while at < len(body):
        found = body[at : at + size].find(QUOTE)
        if found >= 0:
            return at + found
        at, size = at + size, PIECE_BYTES
    return -1


def _backslashes(body: Text, begin: int, end: int) -> int:
    """The number of backslashes that stand directly before a place."""
    count = 0
    while True:
        window = body[max(begin, end - count - WINDOW_BYTES) : end - count]
        here = len(window) - len(window.rstrip(BACKSLASH))
        count += here
        if here < len(window) or not window:
            return count


def _unescaped(body: Text, begin: int, end: int) -> str:
    """The text of a string.

    Raises ValidationError where it is no JSON, and BadRequest where it is too long for text and holds what no URL does.
    """
    if end - begin <= TEXT_BYTES:
        return str(parse(body[begin - 1 : end + 1]))
    text = ""
    for start, stop in _pieces(body, begin, end):
        piece = str(parse(QUOTE + body[start:stop] + QUOTE))
        if not piece.isascii():
            raise _no_url()
        text += piece  # grows in place: one long copy would hold the interpreter while its memory is made
    return text


def _pieces(body: Text, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches of a string that split no escape."""
    while begin < end:
        stop = end if end - begin <= PIECE_BYTES else _between_escapes(body, begin, begin + PIECE_BYTES)
        yield begin, stop
        begin = stop


def _between_escapes(body: Text, begin: int, stop: int) -> int:
    """The last place at or before this one that is not within an escape; a run of backslashes begins outside of one."""
    last = body[stop - ESCAPE_BYTES : stop].rfind(BACKSLASH) + stop - ESCAPE_BYTES
    return stop if last < stop - ESCAPE_BYTES or _backslashes(body, begin, last + 1) % 2 == 0 else last


def _no_url() -> BadRequest:
    return BadRequest(
        f"a text that begins with data: is longer than {TEXT_BYTES} bytes and holds what no data: URL does; send pictures "
        "as data:image/…;base64,…"
    )


def with_urls(data: Any, mark: str, urls: list[str]) -> Any:
    """The data with the URLs in the places of their marks. Raises BadRequest where one of them is a field's name."""
    whole = [data]
    left: list[Any] = [whole]
    while left:
        holder = left.pop()
        if isinstance(holder, dict) and any(name.startswith(mark) for name in holder):
            raise BadRequest(f"the name of a field has more than {URL_BYTES} bytes; give it a short one")
        for place, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, str):
                if value.startswith(mark):
                    holder[place] = urls[int(value[len(mark) :])]
            elif isinstance(value, dict | list):
                left.append(value)
    return whole[0]
