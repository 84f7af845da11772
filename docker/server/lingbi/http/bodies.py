"""Takes a request's body in, and makes a model of it, without holding the event loop for as long as a large body would."""

import asyncio
import mmap
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from lingbi.api_errors import ClientGone, UnsupportedEncoding
from lingbi.http.protocol.faults import bad_request
from lingbi.http.protocol.json_reading import Text, read_json
from lingbi.http.protocol.requests import Sampled
from lingbi.http.service import Service

INLINE_BYTES = 32 << 10  # larger bodies are parsed in a thread
ROUTED = "x-lingbi-model"  # the header with which the gateway says which model a name, or none, means
Asked = TypeVar("Asked", bound=Sampled)


async def read_body(service: Service, request: Request, model: type[Asked]) -> Asked:
    """The request's JSON as a model, prepared.

    Raises BadRequest, which names the field; TooLong; UnsupportedEncoding; and ClientGone when the client leaves before
    the body is complete.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedEncoding(
            f"the body is sent with Content-Encoding: {encoding[:60]}, and only identity is read; send it as it is",
            headers={"Accept-Encoding": "identity"},
        )
    arriving = Arriving(service.limits.body_bytes)
    try:
        async for piece in request.stream():
            arriving.add(piece)
    except ClientDisconnect:
        raise ClientGone from None
    body, meant = arriving.whole(), meant_model(service, request)
    if len(body) <= INLINE_BYTES:
        return parsed(body, model, meant)
    return await asyncio.get_running_loop().run_in_executor(service.reading, parsed, body, model, meant)


def meant_model(service: Service, request: Request) -> str | None:
    """The model served here, if the gateway says that the request means it under whatever name; None otherwise.

    A client may send the header as well: it then gets the model that it could ask for by its own name.
    """
    served = service.readiness.model
    return served if request.headers.get(ROUTED, "").encode("latin-1") == served.encode() else None


class Arriving:
    """A body that grows. A large one gets its address space at once, so that it is never copied to grow."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._small, self._bytes = b"", 0
        self._large: mmap.mmap | None = None

    def add(self, piece: bytes) -> None:
        """Put a piece at the end; all together have at most `most_bytes`, as the door sees to."""
        if self._large is None and self._bytes + len(piece) > INLINE_BYTES:
            self._large = mmap.mmap(-1, self.most_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._large[: self._bytes] = self._small
        if self._large is None:
            self._small += piece
        else:
            self._large[self._bytes : self._bytes + len(piece)] = piece
        self._bytes += len(piece)

    def whole(self) -> Text:
        """All that has come."""
        if self._large is None:
            return self._small
        self._large.resize(self._bytes)
        return self._large


def parsed(body: Text, model: type[Asked], meant: str | None = None) -> Asked:
    """The body as a model, prepared. meant: the model in place of the one that it names. Raises what read_body raises."""
    data = read_json(body)
    if meant is not None and isinstance(data, dict):
        data["model"] = meant
    try:
        asked = model.model_validate(data)
    except ValidationError as error:
        raise bad_request(error, data) from None
    asked.prepare()
    return asked
