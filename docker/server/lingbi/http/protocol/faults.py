"""One sentence for what is wrong with a request's body, and the field's place as the OpenAI API writes it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from lingbi.api_errors import BadRequest
from lingbi.http.protocol.unserved import NOT_SERVED

MESSAGE_CHARACTERS = 300
SEEN_CHARACTERS = 60
Context = Mapping[str, Any]
Loc = Sequence[int | str]

# Sentences by pydantic's error types; others keep pydantic's own words.
SENTENCES: Mapping[str, Callable[[Context], str]] = {
    "missing": lambda _: "is needed",
    "too_long": lambda c: f"holds at most {c['max_length']} entries, got {c['actual_length']}",
    "too_short": lambda c: f"needs at least {c['min_length']} entry",
    "greater_than_equal": lambda c: f"must be at least {c['ge']:g}",
    "less_than_equal": lambda c: f"must be at most {c['le']:g}",
    "less_than": lambda c: f"must be less than {c['lt']:g}",
    "finite_number": lambda _: "must be a finite number",
    "literal_error": lambda c: f"must be {c['expected']}",
    "union_tag_invalid": lambda c: f"{str(c['discriminator'])} must be one of {c['expected_tags']}",
    "union_tag_not_found": lambda c: f"{str(c['discriminator'])} is needed",
    "string_type": lambda _: "must be a string",
    "list_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "model_attributes_type": lambda _: "must be an object",
    "bool_type": lambda _: "must be true or false",
    "bool_parsing": lambda _: "must be true or false",
    "int_type": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "int_parsing_size": lambda _: "is too large a number",
    "int_from_float": lambda _: "must be a whole number",
    "float_type": lambda _: "must be a number",
    "float_parsing": lambda _: "must be a number",
    "string_too_short": lambda _: "must not be empty",
    "value_error": lambda c: str(c["error"]),
    "string_too_long": lambda c: f"holds at most {c['max_length']} characters",
}


def bad_request(error: ValidationError, data: Any) -> BadRequest:
    """The refusal of a body's data for the first thing that is wrong with it."""
    found = error.errors(include_url=False)[0]
    place = place_of(found["loc"], data)
    if found["type"] == NOT_SERVED:
        name = found["ctx"]["param"]
        place = f"{place}.{name}".lstrip(".")
        sentence = f"{place} is not served; {found['ctx']['instead']} (got {_seen(found['input'][name])})"
        return BadRequest(sentence[:MESSAGE_CHARACTERS], place)
    seen = "" if found["type"] in ("missing", "too_long", "union_tag_not_found") else f" (got {_seen(found['input'])})"
    sentence = f"{place}: {_sentence(found)}{seen}" if place else f"the body {_sentence(found)}{seen}"
    return BadRequest(sentence[:MESSAGE_CHARACTERS], place or None)


def place_of(loc: Loc, data: Any) -> str:
    """The place of a value in data, as in messages[0].content[1].image_url.

    pydantic's loc also names which type of a union was tried; what data does not have, but for a last name that is
    missing, is such a name.
    """
    place = ""
    for number, part in enumerate(loc):
        if isinstance(part, int) and isinstance(data, list) and part < len(data):
            place, data = f"{place}[{part}]", data[part]
        elif isinstance(data, dict) and (part in data or number == len(loc) - 1):
            place, data = f"{place}.{part}".lstrip("."), data.get(part)
    return place


def _sentence(found: ErrorDetails) -> str:
    told = SENTENCES.get(found["type"])
    return told(found.get("ctx", {})) if told else found["msg"]


def _seen(value: Any) -> str:
    return _shown(value, SEEN_CHARACTERS)[:SEEN_CHARACTERS]


def _shown(value: Any, room: int) -> str:
    """The value as Python writes it, written no further than the room goes: a list may have thousands of entries."""
    if isinstance(value, str):
        return repr(value[:room])
    if not isinstance(value, list | dict):
        return repr(value)
    text = ""
    for entry in value:
        if len(text) > room:
            break
        inner = _shown(entry, room - len(text))
        text += f"{', ' if text else ''}{inner}"
        if isinstance(value, dict):
            text += f": {_shown(value[entry], room - len(text))}"
    return f"[{text}]" if isinstance(value, list) else f"{{{text}}}"
