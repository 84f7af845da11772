"""What a request's JSON says, without its pictures: long strings are left out, and marks of them stand in their places.

A body is looked through once, in pieces, where it lies (in a file that nginx wrote); only what is left is parsed, and
that is small, since no session holds more text. Whatever cannot be read here is refused by the server in its own words.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

LONG_BYTES = 64 << 10  # strings from here on are left out: the data: URLs of pictures
TEXT_BYTES = 2 << 20  # of a request without them; the servers refuse more
STRINGS = 32768
PIECE_BYTES = 256 << 10
WINDOW_BYTES = 4 << 10
SAMPLE_BYTES = 64 << 10
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
QUOTE, BACKSLASH = b'"', b"\\"
Body = bytes | mmap.mmap


class Unreadable(ValueError):
    """This body is no JSON, or more than any server takes."""


def outline_of_file(file: Path) -> Any:
    """The outline of a body in a file. Raises Unreadable."""
    with file.open("rb") as stream:
        if not file.stat().st_size:
            raise Unreadable("the body is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as body:
            return outline(body)


def outline(body: Body) -> Any:
    """The value that a body holds, with a mark for each long string. Where a field is given twice, the last one counts,
    as in the servers. Raises Unreadable."""
    text = _without_long_strings(body) if len(body) > LONG_BYTES else body[:]
    try:
        return json.loads(text.removeprefix(BYTE_ORDER_MARK).decode())
    except (ValueError, RecursionError):
        raise Unreadable("the body is no JSON") from None


def _without_long_strings(body: Body) -> bytes:
    rest, copied, at, left_out = bytearray(), 0, 0, 0
    for _ in range(STRINGS):
        begin = _next_quote(body, at) + 1
        if not begin:
            break
        end = _end_of_string(body, begin)
        if end - begin > LONG_BYTES:
            rest += body[copied:begin] + _mark(body, begin, end)
            copied, left_out = end, left_out + end - begin
        at = end + 1
        _check_length(at - left_out)
    else:
        raise Unreadable(f"the body has more than {STRINGS} strings")
    _check_length(len(body) - left_out)
    return bytes(rest + body[copied:])


def _check_length(text_bytes: int) -> None:
    if text_bytes > TEXT_BYTES:
        raise Unreadable(f"the body has more than {TEXT_BYTES} bytes besides its pictures")


def _mark(body: Body, begin: int, end: int) -> bytes:
    """Letters that are the same for the same string: of its length, its beginning and its end."""
    found = hashlib.sha256(b"%d:" % (end - begin))
    found.update(body[begin : begin + SAMPLE_BYTES])
    found.update(body[max(begin, end - SAMPLE_BYTES) : end])
    return b"long:" + found.hexdigest().encode()


def _end_of_string(body: Body, at: int) -> int:
    """The place of the quotation mark that ends the string within which `at` is. Raises Unreadable."""
    for _ in range(TEXT_BYTES):
        end = _next_quote(body, at)
        if end < 0:
            raise Unreadable("a string does not end")
        if _backslashes(body, at, end) % 2 == 0:
            return end
        at = end + 1
    raise Unreadable("a string has too many quotation marks")


def _next_quote(body: Body, at: int) -> int:
    """The place of the next quotation mark, or -1. It copies stretches: mmap's own search is slow."""
    size = WINDOW_BYTES
    while at < len(body):
        found = body[at : at + size].find(QUOTE)
        if found >= 0:
            return at + found
        at, size = at + size, PIECE_BYTES
    return -1


def _backslashes(body: Body, begin: int, end: int) -> int:
    """How many backslashes stand directly before a place, none of them before `begin`."""
    count = 0
    while end - count > begin:
        window = body[max(begin, end - count - WINDOW_BYTES) : end - count]
        here = len(window) - len(window.rstrip(BACKSLASH))
        count += here
        if here < len(window):
            break
    return count
