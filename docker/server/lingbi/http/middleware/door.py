"""The middleware before the API: key, readiness, admission and size limits.

It is plain ASGI, so that it passes streams through unbuffered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingbi.accounts.facts import PAGE, VISITOR
from lingbi.accounts.visitors import login_of
from lingbi.api_errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    ClientGone,
    NotReady,
    Refusal,
    UnknownKey,
    VisitorEnded,
)
from lingbi.http.admission.bodies import HeldBody
from lingbi.http.middleware.accounting import GONE, RECORD
from lingbi.http.request_log import Record

if TYPE_CHECKING:
    from lingbi.accounts.facts import KeyFacts
    from lingbi.http.service import Limits, Service

RETRY_AFTER_S = 5
ASKER = "lingbi.asker"  # in the scope of a request that was admitted: its key, as turns.Asker
ACCOUNT = "lingbi.account"  # in the scope of a request with a key: its KeyFacts
VISITOR_HEADER = b"x-lingbi-visitor"  # a login of the page, which asks for it
INSIDE = (
    "lingbi.inside"  # in the scope of what the worker asks itself for an account, such as a batch's line: its KeyFacts
)
HELD = "lingbi.held"  # in the same scope: the HeldBody that is counted already
Headers = dict[bytes, bytes]


class Door:
    """The ASGI middleware, inside Accounting, which notes each request's route.

    open_routes: need neither a key nor a worker that is ready; keyless_routes: need no key; generation_routes: use the
    engine and so need admission; early_routes: need a key, and no worker that is ready.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        open_routes: Collection[str],
        keyless_routes: Collection[str],
        generation_routes: Collection[str],
        early_routes: Collection[str] = (),
    ) -> None:
        self.app, self.service = app, service
        self.open_routes, self.keyless_routes, self.generation_routes = open_routes, keyless_routes, generation_routes
        self.early_routes = early_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = body = None
        try:
            key = self._admit(scope, headers)
            body = scope.get(HELD) or (HeldBody(self.service.body_room, scope[ASKER]) if ASKER in scope else None)
            limits = self.service.limits_of(scope[RECORD].route)
            await self.app(scope, _limited(receive, headers, limits, body), send)
        except Refusal as refusal:
            await refuse(scope, refusal)(scope, receive, send)
        except ClientGone:
            scope[RECORD].status = GONE
        finally:
            if body:
                body.end()
            if key:
                self.service.admission.leave(key, scope[ASKER].is_background)
            self.service.background.leave(id(scope[RECORD]))
            self.service.end_quota(scope[RECORD])

    def _admit(self, scope: Scope, headers: Headers) -> KeyFacts | None:
        """The key to release at the end if the request was counted; None otherwise."""
        record: Record = scope[RECORD]
        if record.route in self.open_routes:
            return None
        inside: KeyFacts | None = scope.get(INSIDE)
        key = inside or self._find(headers, needs_key=record.route not in self.keyless_routes)
        if key:
            record.key, record.group, scope[ACCOUNT] = key.name, key.group or "", key
            if self.service.spool and record.route in self.generation_routes:
                record.use = self.service.spool.open(record)
        if not self.service.readiness.is_open and record.route not in self.early_routes:
            raise NotReady(
                f"this worker does not answer now: {self.service.readiness.phase}",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        if key is None or record.route not in self.generation_routes:
            return None
        if not inside:  # what the worker asks itself waits behind all others, and takes none of their places
            if self.service.quotas:  # first: a request that is refused anyway must cost nobody a place
                self.service.quotas.refuse_spent(key)
            self.service.admission.enter(key)
        asker = self.service.admission.asker(key)
        scope[ASKER] = asker.in_background if inside else asker
        return None if inside else key

    def _find(self, headers: Headers, needs_key: bool) -> KeyFacts | None:
        """The key of a request; None for one without a key that counts. Raises UnknownKey where one is needed, and BadRequest."""
        key = self.service.keys.find(_bearer(headers))
        now = self.service.keys.clock.now()
        if key and not key.has_ended(now):
            key = self._whose(key, headers)
            if not key.has_ended(now):
                return key
        if needs_key:
            raise _locked_out(key, is_sent=bool(_bearer(headers)))
        return None

    def _whose(self, key: KeyFacts, headers: Headers) -> KeyFacts:
        """The account that a request counts for: the page says which of its visitors asks. Raises BadRequest."""
        presented = headers.get(VISITOR_HEADER)
        if presented is None:
            return key
        if key.kind != PAGE:
            raise BadRequest("the header X-Lingbi-Visitor is for the page's own key; send the request without it")
        login = login_of(presented)
        if login is None:
            raise BadRequest(f"the header X-Lingbi-Visitor: {presented[:60]!r} is no login, percent-encoded as UTF-8")
        return self.service.visitors.find(login)


def _locked_out(key: KeyFacts | None, is_sent: bool) -> UnknownKey:
    """Why a key that has ended, the ended account of a visitor, or no known key at all does not let in. is_sent: whether one came."""
    headers = {"WWW-Authenticate": "Bearer"}
    if key is None and not is_sent:
        return UnknownKey("an API key is needed: send the header `Authorization: Bearer KEY`", headers=headers)
    if key is None:
        return UnknownKey(
            "this API key is unknown; look for a slip in it, or ask whoever runs this server for one", headers=headers
        )
    if key.kind == VISITOR:
        return VisitorEnded(
            f"the account of this visitor ({key.name}) has ended; ask whoever runs this server", headers=headers
        )
    return UnknownKey(f"this API key ({key.name}) has ended; ask whoever runs this server for another", headers=headers)


def refuse(scope: Scope, refusal: Refusal) -> JSONResponse:
    """The response for a refusal, which is also noted in the request's record."""
    record: Record = scope[RECORD]
    record.error, record.reason = refusal.code, refusal.reason
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


def _limited(receive: Receive, headers: Headers, limits: Limits, body: HeldBody | None) -> Receive:
    """A `receive` that raises BodyTooLarge, BodyTimeout or Busy once a body exceeds its limits.

    body: is told how large it is; None of routes that read none.
    """
    announced = int(headers.get(b"content-length", b"0")[:18] or 0)
    if announced > limits.body_bytes:
        raise _too_large(limits)
    if body:
        body.grow_to(announced)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.body_timeout_s
    state: dict[str, Any] = {"bytes": 0, "is_complete": False}

    async def limited() -> Message:
        if state["is_complete"]:
            return await receive()
        left_s = limits.body_timeout_s if limits.is_for_each_piece else deadline - loop.time()
        try:
            message = await asyncio.wait_for(receive(), left_s)
        except asyncio.TimeoutError:
            what = (
                "nothing of the request came for"
                if limits.is_for_each_piece
                else "the request did not come whole within"
            )
            raise BodyTimeout(f"{what} {limits.body_timeout_s} s") from None
        state["bytes"] += len(message.get("body", b""))
        state["is_complete"] = not message.get("more_body", False)
        if state["bytes"] > limits.body_bytes:
            raise _too_large(limits)
        if body:
            body.grow_to(state["bytes"])
        return message

    return limited


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the request is larger than {limits.body_bytes} bytes; send smaller or fewer pictures")


def _bearer(headers: Headers) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
