"""Asks the worker's own application what a batch's line asks, as its owner would, but in the background."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from lingbi.accounts.facts import KeyFacts
from lingbi.batch.claims import Claimed
from lingbi.http.admission.bodies import HeldBody
from lingbi.http.middleware.door import HELD, INSIDE

FILE_ID = "file-"
TYPES = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"GI": "image/gif", b"RI": "image/webp", b"BM": "image/bmp"}
TRY_AGAIN = (429, 499, 503)
ReadFile = Callable[[str], bytes]  # the content of one of the owner's files; raises LookupError
FileBytes = Callable[[str], int]  # how many it has; raises LookupError
DATA_URL_BYTES = 60  # of what stands around a picture's base64, or more


@dataclass(frozen=True)
class Told:
    """What the application answered."""

    status: int
    request_id: str
    body: Any
    retry_after_s: float

    @property
    def must_wait(self) -> bool:
        """Whether the line is to be asked again: not where it is larger than a limit, which no waiting changes."""
        return self.status in TRY_AGAIN and not _is_beyond_limit(self.body)


def _is_beyond_limit(body: Any) -> bool:
    match body:
        case {"error": {"quota": {"why": "too large"}}}:
            return True
    return False


async def ask(app: ASGIApp, account: KeyFacts, claimed: Claimed, body: bytes, held: HeldBody | None = None) -> Told:
    """Put a line's body to the application, as its owner. held: what is counted of the body already."""
    inside = {INSIDE: account} | ({HELD: held} if held else {})

    async def as_owner(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, **inside}, receive, send)

    transport = httpx.ASGITransport(app=as_owner, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=None) as client:
        headers = {"content-type": "application/json"}
        response = await client.post(claimed.endpoint, content=body, headers=headers)
    waits = response.headers.get("retry-after", "")
    return Told(
        response.status_code,
        response.headers.get("x-request-id", ""),
        _json_of(response.content),
        float(waits) if waits.isdecimal() else 0.0,
    )


def _json_of(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")


def size_of(line: bytes, file_bytes: FileBytes) -> int:
    """The most bytes of the body of a line, with the pictures that it names by file id; none of them is read.

    Raises LookupError for a file that its owner does not have.
    """
    if FILE_ID.encode() not in line:
        return len(line)
    named = Counter(_files_of(json.loads(line)["body"]))
    return len(line) + sum(count * _data_url_bytes(file_bytes(file_id)) for file_id, count in named.items())


def _data_url_bytes(content_bytes: int) -> int:
    return (content_bytes + 2) // 3 * 4 + DATA_URL_BYTES


def _files_of(part: Any) -> Iterator[str]:
    """The id of each file that stands in place of a picture, as often as it does."""
    if isinstance(part, list):
        for item in part:
            yield from _files_of(item)
    elif isinstance(part, dict):
        for name, value in part.items():
            if _names_file(name, value):
                yield value
            else:
                yield from _files_of(value)


def body_of(line: bytes, model: str, read_file: ReadFile) -> bytes:
    """The body that a line's request to this model is sent with: whole, with the pictures that it names by file id.

    Raises LookupError for a file that its owner does not have.
    """
    body: dict[str, Any] = json.loads(line)["body"]
    body["model"], body["stream"] = model, False
    for name in ("stream_options", "service_tier"):  # a line is whole, and in the background whatever it asks for
        body.pop(name, None)
    if FILE_ID.encode() in line:
        body = _with_files(body, read_file)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))  # no larger than the line
    return text.encode("utf-8", "surrogatepass")


def _with_files(part: Any, read_file: ReadFile) -> Any:
    """The same, with a data URL in place of each `url` that is the id of a file."""
    if isinstance(part, list):
        return [_with_files(item, read_file) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        name: _data_url(read_file(value)) if _names_file(name, value) else _with_files(value, read_file)
        for name, value in part.items()
    }


def _names_file(name: str, value: Any) -> bool:
    return name in ("url", "image_url") and isinstance(value, str) and value.startswith(FILE_ID)


def _data_url(content: bytes) -> str:
    kind = TYPES.get(content[:2], "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
