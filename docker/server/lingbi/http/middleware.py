"""What every request passes first and last: id, key, readiness, admission, size; then log and metrics.

Plain ASGI, so that streams pass untouched.
"""

import asyncio
import logging

from starlette.responses import JSONResponse

from lingbi.api_errors import BodyTimeout, BodyTooLarge, ClientGone, ImageError, NotReady, Refusal, UnknownKey
from lingbi.http.request_log import Record, request_id

log = logging.getLogger(__name__)
GONE = 499  # nginx's number for a client that left; nobody receives it
RETRY_AFTER_S = 5
OPEN_ROUTES = ("/live", "/ready", "/metrics")
RECORD = "lingbi.record"


class Door:
    """ASGI middleware around the API. generation_routes: those that use the engine."""

    def __init__(self, app, service, generation_routes: tuple):
        self.app, self.service, self.generation_routes = app, service, generation_routes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        client = (scope.get("client") or ("",))[0]
        record = Record(request_id(headers.get(b"x-request-id", b"")), scope["method"], scope["path"][:200], client)
        scope[RECORD] = record
        try:
            await self._answer(scope, headers, receive, _Marked(send, record))
        finally:
            self._account(record)

    async def _answer(self, scope, headers, receive, send) -> None:
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

    def _admit(self, scope, headers):
        """The key to give back at the end, for requests that were counted; None for the others."""
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
    """Sends on, with the request's id; remembers the status."""

    def __init__(self, send, record: Record):
        self._send, self._record = send, record

    async def __call__(self, message):
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._record.id.encode())]
        await self._send(message)


def refuse(scope, refusal: Refusal) -> JSONResponse:
    """The response to a refusal, noted in the request's record."""
    record = scope[RECORD]
    record.error, record.reason = refusal.code, refusal.reason
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


def _limited(receive, headers, limits):
    """`receive` that ends what is too large or too slow."""
    if int(headers.get(b"content-length", b"0")[:18] or 0) > limits.body_bytes:
        raise _too_large(limits)
    deadline = asyncio.get_running_loop().time() + limits.body_timeout_s
    state = {"bytes": 0, "is_complete": False}

    async def limited():
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


def _too_large(limits) -> BodyTooLarge:
    return BodyTooLarge(f"the request is larger than {limits.body_bytes} bytes; send smaller or fewer pictures")


def _bearer(headers) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
