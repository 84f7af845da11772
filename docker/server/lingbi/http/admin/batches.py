"""/v1/admin/batches: everybody's batches. What is in their files stays with their owners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import RowMapping
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lingbi.api_errors import BadRequest
from lingbi.batch import batches
from lingbi.batch.states import ENDED, OPEN, batch_object
from lingbi.batch.store import Store
from lingbi.http.admin.administrators import check_administrator
from lingbi.http.batch.batches import MAX_PAGE, cancel, errors_object, found_batch
from lingbi.http.batch.files import owner_of, page_object, page_of

BATCHES = "/v1/admin/batches"
BATCH = BATCHES + "/{batch_id}"


def batch_routes(store: Store, on_change: Callable[[], None]) -> list[Route]:
    """The routes. on_change: told after each change, so that a runner looks at once."""
    routes = BatchRoutes(store, on_change)
    return [
        Route(BATCHES, routes.every),
        Route(BATCH, routes.one),
        Route(f"{BATCH}/errors", routes.errors),
        Route(f"{BATCH}/cancel", routes.cancel, methods=["POST"]),
    ]


class BatchRoutes:
    """The endpoints; each raises NotPermitted for a key that is no administrator's."""

    def __init__(self, store: Store, on_change: Callable[[], None]) -> None:
        self.store, self.on_change = store, on_change

    async def every(self, request: Request) -> Response:
        """GET: a page of all batches, or of those of a key (?owner=NAME), or in a status (?status=)."""
        viewer = check_administrator(request).name
        page, query = page_of(request, MAX_PAGE), request.query_params
        owner, status = query.get("owner") or None, query.get("status") or None
        if status and status not in (*OPEN, *ENDED):
            raise BadRequest(f"status is {status[:40]!r}; give one of {', '.join((*OPEN, *ENDED))}", "status")

        def found() -> list[RowMapping]:
            with self.store.database.read() as connection:
                return batches.listed(connection, owner, page, status)

        return page_object(await run_in_threadpool(found), page, lambda row: owned_object(row, viewer))

    async def one(self, request: Request) -> Response:
        """GET: one batch."""
        return JSONResponse(owned_object(await self._found(request), owner_of(request)))

    async def errors(self, request: Request) -> Response:
        """GET: what lines of a batch failed of, by kind, without their owner's words."""
        return await errors_object(self.store, await self._found(request), has_examples=False)

    async def cancel(self, request: Request) -> Response:
        """POST: let no further line of a batch begin."""
        await cancel(self.store, await self._found(request))
        self.on_change()
        return await self.one(request)

    async def _found(self, request: Request) -> RowMapping:
        check_administrator(request)
        return await found_batch(self.store, None, request.path_params["batch_id"])


def owned_object(row: RowMapping, viewer: str) -> dict[str, Any]:
    """A batch's object with the name of the key that made it, whose words nobody else sees. viewer: the key that asks."""
    told = batch_object(row) | {"owner": row["owner"]}
    if row["owner"] == viewer:
        return told
    if told["errors"]:
        told["errors"]["data"] = [fault | {"message": None, "param": None} for fault in told["errors"]["data"]]
    return told | {"metadata": None}
