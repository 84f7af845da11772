"""Files of batches on their way between a browser and the API, as they come: none is held here."""

import logging
import secrets
from collections.abc import AsyncIterator, Callable

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lingbi_ui.accounts.client import Away, Found, Headers, read
from lingbi_ui.accounts.site import HEADERS
from lingbi_ui.guard.visitors import Visitor, visitor_in
from lingbi_ui.settings import Settings

MAX_ALL, MAX_OF_ONE = 32, 4  # at once
MOST_BYTES = "X-Lingbi-Most-Bytes"  # tells the API how much room to keep for a file whose length is not known yet
TIMEOUT = httpx.Timeout(60, connect=5)  # of each piece
log = logging.getLogger("uvicorn.error")


class Full(Exception):
    """So many files are on their way that one more has to wait."""


class Download(StreamingResponse):
    """An answer that says when it has ended, however it ends."""

    def __init__(self, pieces: AsyncIterator[bytes], headers: Headers, on_end: Callable[[], None]):
        super().__init__(pieces, headers=headers, media_type="application/jsonl")
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_end()


class Transfers:
    """All files that are on their way, with connections of their own, so that slow ones keep no page waiting."""

    def __init__(self, settings: Settings):
        limits = httpx.Limits(max_connections=MAX_ALL, max_keepalive_connections=0)
        self.http = httpx.AsyncClient(base_url=settings.api_url, timeout=TIMEOUT, limits=limits, trust_env=False)
        self.running: list[Visitor] = []

    async def download(self, request: Request, headers: Headers, path: str, name: str) -> Response:
        """The content of a file of the API, for the browser to keep by this name. Raises Full, Refused and Away."""
        visitor = self._begin(request)
        try:
            asked = self.http.build_request("GET", path, headers=headers | {"Accept-Encoding": "identity"})
            answer = await self.http.send(asked, stream=True)
            if answer.status_code != 200:
                await answer.aread()
                read(answer)
                raise Away
        except httpx.HTTPError as error:
            self.running.remove(visitor)
            raise _away(error) from None
        except BaseException:
            self.running.remove(visitor)
            raise
        named = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
        size = answer.headers.get("content-length")
        return Download(
            _pieces(answer), named | ({"Content-Length": size} if size else {}), lambda: self.running.remove(visitor)
        )

    async def upload(self, request: Request, headers: Headers, name: str, content: AsyncIterator[bytes]) -> Found:
        """Send a file to the API, for a batch; returns what it says of it. Raises Full, Refused, Away, and what the content
        raises."""
        visitor = self._begin(request)
        boundary = secrets.token_hex(16)
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if size := request.headers.get("content-length"):  # with the form's other fields
            kind[MOST_BYTES] = size
        try:
            form = _form(boundary, name, content)
            return read(await self.http.post("/v1/files", headers=headers | kind, content=form))
        except httpx.HTTPError as error:
            raise _away(error) from None
        finally:
            self.running.remove(visitor)

    def _begin(self, request: Request) -> Visitor:
        visitor = visitor_in(request.scope)
        if len(self.running) >= MAX_ALL or self.running.count(visitor) >= MAX_OF_ONE:
            raise Full
        self.running.append(visitor)
        return visitor


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


async def _form(boundary: str, name: str, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body that the API takes; name: without quotes."""
    disposition = "Content-Disposition: form-data; name="
    yield f'--{boundary}\r\n{disposition}"purpose"\r\n\r\nbatch\r\n'.encode()
    yield f'--{boundary}\r\n{disposition}"file"; filename="{name}"\r\nContent-Type: application/jsonl\r\n\r\n'.encode()
    async for piece in content:
        yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


def _away(error: httpx.HTTPError) -> Away:
    log.info("a file's way from or to the API ended: %s", type(error).__name__)
    return Away()
