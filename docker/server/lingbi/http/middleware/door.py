"""The middleware before the API: key, readiness, admission and size limits.

It is plain ASGI, so that it passes streams through unbuffered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingbi.api_errors import BodyTimeout, BodyTooLarge, ClientGone, NotReady, Refusal, UnknownKey
from lingbi.http.middleware.accounting import GONE, RECORD
from lingbi.http.request_log import Record

if TYPE_CHECKING:
    from lingbi.http.auth import Key
    from lingbi.http.service import Limits, Service

RETRY_AFTER_S = 5
Headers = dict[bytes, bytes]


class Door:
    """The ASGI middleware, inside Accounting, which notes each request's route.

    open_routes: need neither a key nor a worker that is ready; keyless_routes: need no key; generation_routes: use the
    engine and so need admission.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        open_routes: Collection[str],
        keyless_routes: Collection[str],
        generation_routes: Collection[str],
    ) -> None:
        self.app, self.service = app, service
        self.open_routes, self.keyless_routes, self.generation_routes = open_routes, keyless_routes, generation_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
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
        record: Record = scope[RECORD]
        if record.route in self.open_routes:
            return None
        key = self.service.keys.find(_bearer(headers))
        if key:
            record.key = key.name
        elif record.route not in self.keyless_routes:
            raise UnknownKey(
                "a valid API key is needed: send the header `Authorization: Bearer KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not self.service.readiness.is_ready:
            raise NotReady(
                f"this worker does not answer now: {self.service.readiness.phase}",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        if key is None or record.route not in self.generation_routes:
            return None
        self.service.admission.enter(key)
        return key


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
