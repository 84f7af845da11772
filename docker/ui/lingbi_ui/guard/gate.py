"""The one way in: every request is judged here by its route, its visitor and its body, before Gradio sees it."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingbi_ui.guard.desk import Desk
from lingbi_ui.guard.questions import Unfit, cancel_of, press_of, question_of
from lingbi_ui.guard.rates import Rates
from lingbi_ui.guard.refusals import refusal
from lingbi_ui.guard.routes import Route, Work, route_of
from lingbi_ui.guard.sessions import Sessions
from lingbi_ui.guard.streams import Streams
from lingbi_ui.guard.visitors import VISITOR, Shares, Visitor, visitor_of

BODY_S = 30.0  # for a whole body; the gateway sends it at once
MAX_LOGINS, MAX_LOGINS_OF_ONE = 8, 4  # passwords checked at once: each takes 16 MiB
JSON_WORK = (Work.QUESTION, Work.BUTTON, Work.CANCEL)
NOT_FOUND = {"msg": "unexpected_error", "message": "", "success": False, "session_not_found": True}


class Gate:
    """ASGI: lets through what the page itself would send, as often and as large as it would."""

    def __init__(self, app: ASGIApp, desk: Desk, shares: Shares, sessions: Sessions | None) -> None:
        self.app, self.desk, self.shares, self.sessions = app, desk, shares, sessions
        self.rates, self.streams = Rates(), Streams(app, shares)
        self.checking: list[Visitor] = []  # whose passwords are being checked
        own = {number: fn for number, fn in desk.blocks.fns.items() if fn.fn is not None}
        self.queued = frozenset(number for number, fn in own.items() if fn.queue is not False)
        self.buttons = frozenset(own) - self.queued

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._judge(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # the page has none

    async def _judge(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["path"])
        if route is None:
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
        elif scope["method"] not in route.methods:
            allowed = {"Allow": ", ".join(route.methods)}
            await JSONResponse({"detail": "Method Not Allowed"}, 405, allowed)(scope, receive, send)
        else:
            login = self.sessions.name_in(scope) if self.sessions is not None else None
            scope[VISITOR] = visitor = visitor_of(scope, login)
            refused = self._refused(scope, route, visitor, login)
            await (refused(scope, receive, send) if refused else self._work(scope, receive, send, route))

    def _refused(self, scope: Scope, route: Route, visitor: Visitor, login: str | None) -> Response | None:
        """The refusal of a request that needs no look at its body."""
        if self.sessions is not None and route.needs_login and login is None:
            return refusal(scope, 401, "page_refused")
        if scope["method"] != "POST":
            return None
        if not self.rates.take(visitor, self.shares.of(visitor).posts_per_s):
            return refusal(scope, 429, "page_busy")
        return refusal(scope, 413, "page_large") if route.max_bytes and _length(scope) > route.max_bytes else None

    async def _work(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        if route.work in JSON_WORK:
            await self._ask(scope, receive, send, route)
        elif route.work is Work.LOGIN:
            await self._log_in(scope, receive, send, route)
        elif route.work is Work.FORM:
            await self._pass_on(scope, receive, send, route)
        elif route.work is Work.ANSWERS:
            await self._read(scope, receive, send)
        elif route.work is Work.RESET:
            await JSONResponse({"success": True})(scope, receive, send)
        elif route.work is Work.PROGRESS:
            await self.streams.run(scope, receive, send, lambda: self._is_in(scope))
        elif route.work is Work.BATCH:
            await self.app(scope, receive, send)
        elif route.work is Work.UPLOAD:
            await self.app(scope, self._while_in(scope, receive), send)
        else:
            await self.app(scope, _nothing(receive), send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        try:
            body = await whole(receive, route.max_bytes)
            if body is None:
                return  # who asked has gone
            sent = self._fields(route.work, body)
            content = json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()
        except Unfit as unfit:
            await refusal(scope, unfit.status, unfit.word)(scope, receive, send)
            return
        visitor, name = scope[VISITOR], sent["session_hash"]
        if route.work is Work.CANCEL and not self.desk.owns(visitor, name):
            await JSONResponse({"success": True})(scope, receive, send)
        elif route.work is not Work.QUESTION:
            await self.app(_sized(scope, content), _replayed(content, receive), send)
        elif not self.desk.admits(visitor, name, len(content)):
            await refusal(scope, 429, "page_busy")(scope, receive, send)
        else:
            try:
                await self.app(_sized(scope, content), _replayed(content, receive), send)
            finally:
                self.desk.joined(name)

    def _fields(self, work: Work, body: bytes) -> dict[str, Any]:
        if work is Work.CANCEL:
            return cancel_of(body)
        return question_of(body, self.queued) if work is Work.QUESTION else press_of(body, self.buttons)

    async def _log_in(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        visitor = scope[VISITOR]
        if len(self.checking) >= MAX_LOGINS or self.checking.count(visitor) >= MAX_LOGINS_OF_ONE:
            await refusal(scope, 429, "page_busy")(scope, receive, send)
            return
        self.checking.append(visitor)
        try:
            await self._pass_on(scope, receive, send, route)
        finally:
            self.checking.remove(visitor)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        """To the application, once its body is here."""
        try:
            body = await whole(receive, route.max_bytes)
            if body is not None:
                await self.app(_sized(scope, body), _replayed(body, receive), send)
        except Unfit as unfit:
            await refusal(scope, unfit.status, unfit.word)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
        name, visitor = (names[0] if len(names) == 1 else ""), scope[VISITOR]
        if not self.desk.owns(visitor, name):
            content = f"data: {json.dumps(NOT_FOUND)}\n\n"
            await Response(content, media_type="text/event-stream")(scope, receive, send)
        else:
            self.desk.begin_reading(name)
            try:
                await self.streams.run(
                    scope, receive, send, lambda: self._is_in(scope) and self.desk.owns(visitor, name)
                )
            finally:
                self.desk.end_reading(name)

    def _is_in(self, scope: Scope) -> bool:
        """Whether the login of a request that has come in still lasts."""
        return self.sessions is None or self.sessions.name_in(scope) == scope[VISITOR].name

    def _while_in(self, scope: Scope, receive: Receive) -> Receive:
        """What an upload receives: its body for as long as its login lasts, then Unfit."""

        async def received() -> Message:
            message = await receive()
            if not self._is_in(scope):
                raise Unfit("page_refused", 401)
            return message

        return received


async def whole(receive: Receive, max_bytes: int) -> bytes | None:
    """A request's body, or None if its sender has gone. Raises Unfit if it is too large or too slow."""
    try:
        return await asyncio.wait_for(_collected(receive, max_bytes), BODY_S)
    except asyncio.TimeoutError:
        raise Unfit("page_busy", 408) from None


async def _collected(receive: Receive, max_bytes: int) -> bytes | None:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts += message.get("body", b"")
        if len(parts) > max_bytes:
            raise Unfit("page_large", 413)
        if not message.get("more_body"):
            return bytes(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What Gradio receives instead: the body as it was judged, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _nothing(receive: Receive) -> Receive:
    """What Gradio receives of a request without a body."""
    return _replayed(b"", receive)


def _sized(scope: Scope, body: bytes) -> Scope:
    """The scope of a request with this body."""
    kept = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*kept, (b"content-length", str(len(body)).encode())]}


def _length(scope: Scope) -> int:
    told = Headers(scope=scope).get("content-length", "0")
    return int(told) if told.isdecimal() and len(told) < 16 else 0
