"""The outermost middleware: each request gets an id and a record, and ends in the log, the metrics and its account.

It is plain ASGI, so that it passes streams through unbuffered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingbi.api_errors import ImageError
from lingbi.http.request_log import Record, request_id

if TYPE_CHECKING:
    from lingbi.http.metrics import Metrics

GONE = 499  # nginx's status for a client that disconnected; nobody receives it
RECORD = "lingbi.record"
OTHER = "other"


class Accounting:
    """Records each request under its route, whether or not it gets there: metrics by path would grow with every path.

    quiet_routes: those whose successes are not logged.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route], quiet_routes: Collection[str] = ()
    ) -> None:
        self.app, self.metrics, self.routes, self.quiet_routes = app, metrics, routes, quiet_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith("/v1/"):
            # Some clients put a slash behind a path.
            scope = {**scope, "path": scope["path"].rstrip("/")}
        record = scope[RECORD] = self._begin(scope)
        try:
            await self.app(scope, receive, _Marked(send, record))
        finally:
            self._end(record)

    def _begin(self, scope: Scope) -> Record:
        presented = dict(scope["headers"]).get(b"x-request-id", b"")
        client = (scope.get("client") or ("",))[0]
        return Record(request_id(presented), scope["method"], scope["path"][:200], client, self._route(scope))

    def _route(self, scope: Scope) -> str:
        return next((route.path for route in self.routes if route.matches(scope)[0] is not Match.NONE), OTHER)

    def _end(self, record: Record) -> None:
        metrics = self.metrics
        record.status = record.status or GONE
        record.end_use(record.status)
        if record.use:
            metrics.count_group(record.group, record.used())
        metrics.requests.labels(record.route, str(record.status)).inc()
        if record.reason:
            metrics.refused.labels(record.reason).inc()
        if record.error == ImageError.code:
            metrics.rejected_images.labels(record.reason).inc()
        if record.status == GONE:
            metrics.abandoned.inc()
        record.model = record.model or metrics.served  # what was refused before its model was looked at too
        if record.route not in self.quiet_routes or record.status >= 500:
            record.write()


class _Marked:
    """Forwards messages, adds the request's id and its other headers and records the status.

    What a request used is written down before the end of its answer leaves: whoever has that is counted.
    """

    def __init__(self, send: Send, record: Record) -> None:
        self._send, self._record = send, record

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            own = {"x-request-id": self._record.id} | self._record.headers
            message["headers"] = [*message.get("headers", ()), *((name.encode(), own[name].encode()) for name in own)]
        elif not message.get("more_body") and self._record.status:
            self._record.end_use(self._record.status)
        await self._send(message)
