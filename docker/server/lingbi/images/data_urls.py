"""Reads data: URLs as browsers do: the WHATWG's data: URL processor with its forgiving base64.

https://fetch.spec.whatwg.org/#data-url-processor and https://infra.spec.whatwg.org/#forgiving-base64-decode. Every step
is linear in the URL's length. They are meant for a thread, because a URL may have many megabytes.
"""

import binascii
import re
from collections.abc import Iterable

import numpy as np

from lingbi.api_errors import ImageError
from lingbi.images.limits import too_large

SCHEME = "data:"
# "Leading or trailing C0 control or space", which a URL parser drops around any URL.
BLANKS = "".join(map(chr, range(0x21)))
TABS_AND_NEWLINES = b"\t\n\r"
ASCII_WHITESPACE = b"\t\n\f\r "
BASE64 = b"base64"
PERCENT = ord("%")
NO_DIGIT = 16
HEX_DIGITS = np.array(
    [int(chr(code), 16) if chr(code) in "0123456789abcdefABCDEF" else NO_DIGIT for code in range(256)]
)
HEX_DIGITS = HEX_DIGITS.astype(np.uint8)
GROUP = 4  # digits of three bytes
STEP = 1 << 20  # characters
NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


def decode_data_url(url: str, max_bytes: int) -> bytes:
    """The bytes of a data: URL. Raises ImageError where it is none, and where they are more than max_bytes."""
    if (size := least_size(url)) > max_bytes:
        raise too_large(size, max_bytes)
    url = url.strip(BLANKS)
    end = len(url) if (hash_at := url.find("#")) < 0 else hash_at
    comma = url.find(",", 0, end)
    header = without(_encoded(url[: max(comma, 0)]), TABS_AND_NEWLINES)
    is_escaped = url.find("%", comma + 1, end) >= 0
    # No image file consists of printable ASCII alone: without an escape, the client means base64.
    if comma < 0 or not (is_base64(header) or is_escaped):
        raise ImageError("a data URL must read data:image/…;base64,…", reason="base64")
    if not is_escaped:
        return forgiving_base64(
            (_encoded(url[at : min(at + STEP, end)]) for at in range(comma + 1, end, STEP)), max_bytes
        )
    body = percent_decoded(without(_encoded(url[comma + 1 : end]), TABS_AND_NEWLINES))
    if is_base64(header):
        return forgiving_base64((body[at : at + STEP] for at in range(0, len(body), STEP)), max_bytes)
    if len(body) > max_bytes:
        raise too_large(len(body), max_bytes)
    return body


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def least_size(url: str) -> int:
    """The number of bytes that a URL's data have at least; it is found without the copies that reading them takes."""
    start, end = url.find(",") + 1, url.find("#")
    body = (len(url) if end < 0 else end) - start
    blanks = sum(url.count(blank, start) for blank in ASCII_WHITESPACE.decode() if blank in url)
    escapes = 3 * url.count("%", start) if "%" in url else 0  # each may stand for a blank
    return (body - blanks - escapes - len("==")) * 3 // 4


def without(text: bytes, unwanted: bytes) -> bytes:
    """Text without these bytes; looking for them first saves most texts from being copied."""
    return text.translate(None, unwanted) if any(byte in text for byte in unwanted) else text


def is_base64(header: bytes) -> bool:
    """Whether the part before the comma ends in `;base64`, in capitals or not, with spaces after the semicolon or not."""
    header = header.strip(ASCII_WHITESPACE)
    is_named = header[-len(BASE64) :].lower() == BASE64
    return is_named and header[: -len(BASE64)].rstrip(b" ").endswith(b";")


def percent_decoded(text: bytes) -> bytes:
    """Text with each %XX replaced by its byte; a % without two hexadecimal digits stays.

    Vectorised: a body in which everything is escaped would keep a loop in Python busy for seconds.
    """
    if b"%" not in text:
        return text
    codes = np.frombuffer(text + b"  ", np.uint8)  # so that a % at the end has neighbours
    high, low = HEX_DIGITS[codes[1:-1]], HEX_DIGITS[codes[2:]]
    escapes = np.flatnonzero((codes[:-2] == PERCENT) & (high < NO_DIGIT) & (low < NO_DIGIT))
    decoded, is_kept = codes.copy(), np.ones(len(codes), bool)
    decoded[escapes] = high[escapes] << 4 | low[escapes]
    is_kept[escapes + 1] = is_kept[escapes + 2] = is_kept[-2:] = False
    return bytes(decoded[is_kept])


def forgiving_base64(pieces: Iterable[bytes], max_bytes: int) -> bytes:
    """The bytes of base64 with white space anywhere, padded or not. Raises ImageError.

    It comes in pieces, because the interpreter's lock is kept for each, and for each copy of a long text.
    """
    parts, left, count = list[bytes](), b"", 0
    for piece in pieces:
        digits = without(piece, ASCII_WHITESPACE)
        count += len(digits)
        left += digits
        groups = max(0, len(left) - GROUP) // GROUP * GROUP  # the last one may be padded
        parts.append(_decoded(left[:groups]))
        left = left[groups:]
    if count % GROUP == 0:
        left = left[:-2] + left[-2:].rstrip(b"=")
    if len(left) % GROUP == 1 and not NOT_BASE64.search(left):
        raise _not_base64(f"one character is left over after every four of its {count}")
    parts.append(_decoded(left))
    if (size := sum(map(len, parts))) > max_bytes:
        raise too_large(size, max_bytes)
    return b"".join(parts)


def _decoded(digits: bytes) -> bytes:
    """The bytes of digits without white space or padding. Raises ImageError."""
    if wrong := NOT_BASE64.search(digits):
        raise _not_base64(_stray(wrong[0]))
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % GROUP))


def _stray(character: bytes) -> str:
    found = f"it contains {character.decode('latin-1')!r}"
    return f"{found}, as URL-safe base64 does; send + and / for - and _" if character in b"-_" else found


def _not_base64(why: str) -> ImageError:
    return ImageError(f"the data URL is not valid base64: {why}", reason="base64")
