"""The middleware around the API: request id, key, readiness, admission and size limits, then log and metrics.

It is plain ASGI, so that it passes streams through unbuffered.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingbi.api_errors import BodyTimeout, BodyTooLarge, ClientGone, ImageError, NotReady, Refusal, UnknownKey
from lingbi.http.request_log import Record, request_id

if TYPE_CHECKING:
    from lingbi.http.auth import Key
    from lingbi.http.service import Limits, Service

log = logging.getLogger(__name__)
GONE = 499  # nginx's status for a client that disconnected; nobody receives it
RETRY_AFTER_S = 5
OPEN_ROUTES = ("/live", "/ready", "/metrics")
RECORD = "lingbi.record"
Headers = dict[bytes, bytes]


class Door:
    """The ASGI middleware. generation_routes: the paths that use the engine and so need admission."""

    def __init__(self, app: ASGIApp, service: Service, generation_routes: tuple[str, ...]) -> None:
        self.app, self.service, self.generation_routes = app, service, generation_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith("/v1/"):
            # Some clients put a slash behind a path.
            scope = {**scope, "path": scope["path"].rstrip("/")}
        headers = dict(scope["headers"])
        client = (scope.get("client") or ("",))[0]
        record = Record(request_id(headers.get(b"x-request-id", b"")), scope["method"], scope["path"][:200], client)
        scope[RECORD] = record
        try:
            await self._answer(scope, headers, receive, _Marked(send, record))
        finally:
            self._account(record)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        key = None
        try:
            key = self._admit(scope, headers)
            await self.app(scope, _limited(receive, headers, self.service.limits), send)
        except Refusal as refusal:
            await refuse(scope, refusal)(scope, receive, send)
        except ClientGone:
            scope[RECORD].status = GONE
        finally:
            if key:
                self.service.admission.leave(key)

    def _admit(self, scope: Scope, headers: Headers) -> Key | None:
        """The key to release at the end if the request was counted; None otherwise."""
        if scope["path"] in OPEN_ROUTES:
            return None
        key = self.service.keys.find(_bearer(headers))
        if key is None:
            raise UnknownKey(
                "a valid API key is needed: send the header `Authorization: Bearer KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scope[RECORD].key = key.name
        if not self.service.readiness.is_ready:
            raise NotReady(
                f"this worker does not answer now: {self.service.readiness.phase}",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        if scope["path"] not in self.generation_routes:
            return None
        self.service.admission.enter(key)
        return key

    def _account(self, record: Record) -> None:
        metrics = self.service.metrics
        record.status = record.status or GONE
        metrics.requests.labels(record.route, str(record.status)).inc()
        if record.reason:
            metrics.refused.labels(record.reason).inc()
        if record.error == ImageError.code:
            metrics.rejected_images.labels(record.reason).inc()
        if record.status == GONE:
            metrics.abandoned.inc()
        if record.path not in OPEN_ROUTES or record.status >= 500:
            record.write()


class _Marked:
    """Forwards messages, adds the request's id to the headers and records the status."""

    def __init__(self, send: Send, record: Record) -> None:
        self._send, self._record = send, record

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._record.id.encode())]
        await self._send(message)


def refuse(scope: Scope, refusal: Refusal) -> JSONResponse:
    """The response for a refusal, which is also noted in the request's record."""
    record: Record = scope[RECORD]
    record.error, record.reason = refusal.code, refusal.reason
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


def _limited(receive: Receive, headers: Headers, limits: Limits) -> Receive:
    """A `receive` that raises BodyTooLarge or BodyTimeout once a body exceeds its limits."""
    if int(headers.get(b"content-length", b"0")[:18] or 0) > limits.body_bytes:
        raise _too_large(limits)
    deadline = asyncio.get_running_loop().time() + limits.body_timeout_s
    state: dict[str, Any] = {"bytes": 0, "is_complete": False}

    async def limited() -> Message:
        if state["is_complete"]:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), deadline - asyncio.get_running_loop().time())
        except asyncio.TimeoutError:
            raise BodyTimeout(f"the request did not come whole within {limits.body_timeout_s} s") from None
        state["bytes"] += len(message.get("body", b""))
        state["is_complete"] = not message.get("more_body", False)
        if state["bytes"] > limits.body_bytes:
            raise _too_large(limits)
        return message

    return limited


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the request is larger than {limits.body_bytes} bytes; send smaller or fewer pictures")


def _bearer(headers: Headers) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
