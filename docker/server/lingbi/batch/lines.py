"""The lines of a batch's input file: read one by one within bounds, judged, and told apart from what is none."""

from __future__ import annotations

import hashlib
import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

MAX_ERRORS = 100  # a file that is no batch at all is told by its first lines
MAX_CUSTOM_ID = 512
NUL = "\0"  # PostgreSQL keeps no text with it
DEFAULT = "default"  # the alias for requests that name no model
SEEN_CHARACTERS = 60
# What is wrong with a line, by pydantic's error types; others keep pydantic's own words.
SENTENCES = {
    "missing": "is needed",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "string_too_long": f"holds at most {MAX_CUSTOM_ID} characters",
    "dict_type": "must be an object",
    "model_type": "must be an object with custom_id, method, url and body",
}


class Asked(BaseModel):
    """A line of the input: a request of its own."""

    model_config = ConfigDict(extra="ignore")

    custom_id: str = Field(min_length=1, max_length=MAX_CUSTOM_ID)
    method: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line that can be asked. number: from 1; place, size: where it stands in the file, in bytes."""

    number: int
    custom_id: str
    model: str
    place: int
    size: int


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line, as in the `errors` of OpenAI's batch object; line: None where it is the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True)
class Bounds:
    """endpoint: the only URL of all lines; most_lines, line_bytes: limits of the file; aliases: {alias: model}."""

    endpoint: str
    most_lines: int
    line_bytes: int
    aliases: Mapping[str, str] = field(default_factory=dict)

    def model(self, named: Any) -> Any:
        """The model that a line asks, by what its body names."""
        named = DEFAULT if named in (None, "") and DEFAULT in self.aliases else named
        return self.aliases.get(named, named) if isinstance(named, str) else named


@dataclass(frozen=True)
class Raw:
    """A line as it stands in the file, with its number; text: None if it is larger than a request may be."""

    number: int
    place: int
    size: int
    text: bytes | None


def split(file: BinaryIO, line_bytes: int) -> Iterator[Raw]:
    """The lines of a file; memory is bounded by one line. Empty ones are passed over, and so is a byte order mark at the front."""
    number = place = 0
    while text := file.readline(line_bytes + 2):  # the longest with its \r\n
        number += 1
        size = len(text)
        mark = len(BOM_UTF8) if number == 1 and text.startswith(BOM_UTF8) else 0
        if not text.endswith(b"\n") and size == line_bytes + 2:
            size += _rest(file)
            yield Raw(number, place, size, None)
        elif text[mark:].strip():
            yield Raw(number, place + mark, size - mark, text[mark:])
        place += size


def _rest(file: BinaryIO) -> int:
    """The bytes that are left of a line."""
    size = 0
    while piece := file.readline(1 << 20):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def judge(raws: Iterable[Raw], bounds: Bounds) -> Iterator[Line | Fault]:
    """Each line, or what is wrong with it; ends after MAX_ERRORS faults, and with the line that is one too many."""
    seen: set[bytes] = set()  # 16 bytes for each custom_id, not the text
    count = faults = 0
    for raw in raws:
        count += 1
        if count > bounds.most_lines:
            yield Fault("too_many_lines", f"the file has more than {bounds.most_lines} lines; split it", raw.number)
            return
        found = _judged(raw, bounds, seen)
        yield found
        faults += isinstance(found, Fault)
        if faults >= MAX_ERRORS:
            return
    if not count:
        yield Fault("empty_file", "the input file holds no line; give one request a line")


def _judged(raw: Raw, bounds: Bounds, seen: set[bytes]) -> Line | Fault:
    if raw.text is None:
        return Fault(
            "line_too_large",
            f"the line has {raw.size} bytes, and a request may have {bounds.line_bytes}; send smaller pictures",
            raw.number,
        )
    try:
        asked = Asked.model_validate_json(raw.text)
    except ValidationError as error:
        return _unreadable(error, raw.number)
    if NUL in asked.custom_id:
        return Fault("invalid_line", "custom_id: holds the character U+0000", raw.number, "custom_id")
    if asked.method != "POST" or asked.url != bounds.endpoint:
        told = f"{asked.method} {asked.url}"[:100]
        return Fault("invalid_url", f"{told}: this batch asks POST {bounds.endpoint} in every line", raw.number, "url")
    model = bounds.model(asked.body.get("model"))
    if not isinstance(model, str) or not model or NUL in model:
        return Fault("invalid_model", "the body's model is missing or no name", raw.number, "body.model")
    digest = hashlib.blake2b(asked.custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if digest in seen:
        return Fault(
            "duplicate_custom_id",
            f"custom_id {asked.custom_id[:64]!r} stands in an earlier line too",
            raw.number,
            "custom_id",
        )
    seen.add(digest)
    return Line(raw.number, asked.custom_id, model[:200], raw.place, raw.size)


def _unreadable(error: ValidationError, number: int) -> Fault:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        why = first["ctx"]["error"].replace(" at line 1 column", " at column")  # of this line, whose number is told
        return Fault("invalid_json_line", f"the line is no JSON: {why[:200]}", number)
    place = ".".join(map(str, first["loc"]))
    told = f"{place}: {_sentence(first)}" if place else f"the line {_sentence(first)}"
    return Fault("invalid_line", told, number, place or None)


def _sentence(found: ErrorDetails) -> str:
    told = SENTENCES.get(found["type"], found["msg"][:200])
    return told if found["type"] == "missing" else f"{told} (got {_seen(found['input'])})"


def _seen(value: Any) -> str:
    """A value as it is told: of a text its beginning, and of what may be as large as a line its kind."""
    if isinstance(value, str):
        return repr(value[:SEEN_CHARACTERS])
    return "an array" if isinstance(value, list) else "an object" if isinstance(value, dict) else json.dumps(value)


def errors_of(faults: Iterable[Fault]) -> str:
    """Faults as the JSON of a batch's `errors`."""
    data = [vars(fault) for fault in faults]
    return json.dumps({"object": "list", "data": data}, ensure_ascii=False)
