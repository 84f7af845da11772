"""The body of a question, judged before Gradio reads it: known fields only, of bounded size and depth.

Gradio goes through a conversation many times on its one thread, at every step of an answer.
"""

import json
import re
from typing import Any, NoReturn

MAX_TURNS = 400
MAX_VALUES = 12_000  # of JSON: a turn has fifteen, a picture's ten more
MAX_DEPTH = 12
MAX_BRACKETS = 30_000  # in all of a body, text included: each may be an object to make
MAX_NUMBER = 1 << 53
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
FILE_FIELDS = {"path", "orig_name", "size", "mime_type", "meta"}  # a file's url is Gradio's own affair
EVENT_FIELDS = {"index", "value", "previous_value", "selected", "text"}


class Unfit(Exception):
    """A body that no page sends. word: the sentence for the visitor, status: HTTP's."""

    def __init__(self, word: str = "page_refused", status: int = 400):
        super().__init__(word)
        self.word, self.status = word, status


def question_of(body: bytes, known: frozenset[int]) -> dict[str, Any]:
    """The fields that Gradio may see of a question to one of these functions. Raises Unfit."""
    sent = read(body)
    data, session = sent.get("data"), sent.get("session_hash")
    if not isinstance(data, list) or not is_session(session) or not _is_of(sent.get("fn_index"), known):
        raise Unfit
    details = sent.get("event_data")
    if not isinstance(details, dict | None):
        raise Unfit
    found = Walk().cleaned({"data": data, "event_data": details and _only(details, EVENT_FIELDS)})
    trigger = sent.get("trigger_id")
    number = trigger if isinstance(trigger, int) and abs(trigger) < MAX_NUMBER else None
    return {**found, "fn_index": sent["fn_index"], "session_hash": session, "trigger_id": number}


def press_of(body: bytes, known: frozenset[int]) -> dict[str, Any]:
    """The fields that Gradio may see of a button's press; the functions of buttons take nothing. Raises Unfit."""
    sent = read(body)
    session = sent.get("session_hash")
    if not is_session(session) or not _is_of(sent.get("fn_index"), known):
        raise Unfit
    return {"data": [], "fn_index": sent["fn_index"], "session_hash": session}


def cancel_of(body: bytes) -> dict[str, Any]:
    """The fields of a cancellation. Raises Unfit."""
    sent = read(body)
    number = sent.get("fn_index")
    if not is_session(sent.get("session_hash")) or not is_session(sent.get("event_id")):
        raise Unfit
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MAX_NUMBER:
        raise Unfit
    return {name: sent[name] for name in ("session_hash", "event_id", "fn_index")}


def read(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Unfit."""
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise Unfit("page_large", 413)
    try:
        sent = json.loads(body.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Unfit from None
    if not isinstance(sent, dict):
        raise Unfit
    return sent


def is_session(name: object) -> bool:
    return isinstance(name, str) and SESSION.fullmatch(name) is not None


class Walk:
    """One way through a body, which ends at the bound whatever lies behind it."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def cleaned(self, value: Any, depth: int = 0) -> Any:
        """The value without what a file's or a text's fields must not be. Raises Unfit."""
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise Unfit("page_large", 413)
        if isinstance(value, list):
            if len(value) > MAX_TURNS:
                raise Unfit("page_large", 413)
            return [self.cleaned(item, depth + 1) for item in value]
        if isinstance(value, dict):
            kept = _only(value, FILE_FIELDS) if "path" in value else value
            return {_text(name): self.cleaned(item, depth + 1) for name, item in kept.items()}
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # nor what is infinite
            raise Unfit
        return value


def _only(value: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name in names}


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which no answer could carry
        raise Unfit from None
    return text


def _is_of(number: object, known: frozenset[int]) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number in known


def _refuse(constant: str) -> NoReturn:
    raise Unfit
