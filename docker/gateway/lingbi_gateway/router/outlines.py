"""What a request's JSON says, without its pictures: long strings are left out, and marks of them stand in their places.

A body is looked through once, in pieces, where it lies (in a file that nginx wrote), and each piece costs the same few
calls whatever it holds, because no client may keep the router busy, least of all one whose key nobody has judged yet. Only what is left is
parsed, and that is small, since no session holds more text. Whatever cannot be read here is refused by the server in its
own words.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

LONG_BYTES = 64 << 10  # strings from here on are left out: the data: URLs of pictures
# The servers refuse more. A test holds these alike with theirs, and the way in which they count.
TEXT_BYTES = 2 << 20  # of a request without long strings
VALUES = 16384  # entries of lists and objects
QUOTES = 4 * VALUES  # within and after strings, of a body that has more than TEXT_BYTES with them
PIECE_BYTES, WINDOW_BYTES = 64 << 10, 4 << 10
SAMPLE_BYTES = 64 << 10
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
QUOTE, BACKSLASH, BLANKS = b'"', b"\\", b".."
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
    is_small = len(body) <= LONG_BYTES and _entries(body[:]) <= VALUES
    text = body[:] if is_small else _Walk(body).text()
    try:
        return json.loads(text.removeprefix(BYTE_ORDER_MARK).decode())
    except (ValueError, RecursionError):
        raise Unreadable("the body is no JSON") from None


class _Walk:
    """A walk through a body. begin: where the string begins that is open, within its quotes; None outside of strings."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.begin: int | None = None
        self.rest, self.copied, self.left_out = bytearray(), 0, 0
        self.values = self.quotes = 0

    def text(self) -> bytes:
        """The body with marks in the places of its long strings. Raises Unreadable."""
        at = 0
        while at < len(self.body):
            at += self._step(at)
            self._check(at)
        if self.begin is not None:
            raise Unreadable("a string does not end")
        return bytes(self.rest + self.body[self.copied :])

    def _step(self, at: int) -> int:
        """Go on from a place that is within no escape; how many bytes further."""
        if self.begin is not None and (skipped := _unmarked(self.body[at : at + PIECE_BYTES])):
            return skipped
        piece = self.body[at : at + WINDOW_BYTES]
        if _backslashes(piece) % 2 and at + len(piece) < len(self.body):
            piece = piece[:-1]  # the next piece tells what it escapes
        self._look(at, piece)
        return len(piece)

    def _look(self, at: int, piece: bytes) -> None:
        plain = piece.replace(BACKSLASH + BACKSLASH, BLANKS).replace(BACKSLASH + QUOTE, BLANKS)
        parts, is_open = plain.split(QUOTE), self.begin is not None  # in turn outside and within strings
        marks = len(parts) - 1
        self.values += _entries(b"".join(parts[is_open::2]))
        self.quotes += piece.count(QUOTE) - marks + (marks + is_open) // 2
        if marks:
            self._close(at + len(parts[0]))
            ends_open = (marks + is_open) % 2
            self.begin = at + len(piece) - len(parts[-1]) if ends_open else None

    def _close(self, end: int) -> None:
        """Leave the string that is open out, if it is long."""
        if self.begin is not None and end - self.begin > LONG_BYTES:
            self.rest += self.body[self.copied : self.begin] + _mark(self.body, self.begin, end)
            self.copied, self.left_out = end, self.left_out + end - self.begin

    def _check(self, at: int) -> None:
        """Refuse a body for what it has up to a place."""
        if self.values > VALUES:
            raise Unreadable(f"the body has more than {VALUES} values")
        if self.quotes > QUOTES and len(self.body) > TEXT_BYTES:
            raise Unreadable(f"the body has more than {QUOTES} quotation marks")
        open_bytes = 0 if self.begin is None else at - self.begin
        if at - self.left_out - (open_bytes if open_bytes > LONG_BYTES else 0) > TEXT_BYTES:
            raise Unreadable(f"the body has more than {TEXT_BYTES} bytes besides its pictures")


def _unmarked(piece: bytes) -> int:
    """The bytes before the first quotation mark and the backslash that escapes it, of a piece within a string."""
    end = piece.find(QUOTE)
    before = piece if end < 0 else piece[:end]
    return len(before) - _backslashes(before) % 2


def _backslashes(piece: bytes) -> int:
    """How many backslashes a piece ends with."""
    return len(piece) - len(piece.rstrip(BACKSLASH))


def _entries(stretch: bytes) -> int:
    """An upper bound of the entries of lists and objects in a stretch; outside of strings, their number."""
    return sum(map(stretch.count, b",[{")) if stretch else 0


def _mark(body: Body, begin: int, end: int) -> bytes:
    """Letters that are the same for the same string: of its length, its beginning and its end."""
    found = hashlib.sha256(b"%d:" % (end - begin))
    found.update(body[begin : begin + SAMPLE_BYTES])
    found.update(body[max(begin, end - SAMPLE_BYTES) : end])
    return b"long:" + found.hexdigest().encode()
