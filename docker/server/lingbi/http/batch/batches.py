"""The routes of /v1/batches, as in OpenAI's reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.engine import RowMapping
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lingbi.api_errors import BadRequest, Conflict, NotFound
from lingbi.batch import batches, failures, files
from lingbi.batch.states import batch_object, window_s
from lingbi.batch.store import Store
from lingbi.http.batch.files import owner_of, page_object, page_of
from lingbi.http.protocol.faults import bad_request
from lingbi.http.protocol.json_reading import read_json

MAX_BODY_BYTES, MAX_PAGE = 64 << 10, 100


class BatchRequest(BaseModel):
    """What makes a batch."""

    model_config = ConfigDict(extra="ignore")

    input_file_id: str = Field(max_length=64)
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
    completion_window: str = "24h"
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None


class Batches:
    """The endpoints. on_change: told after each change, so that a runner looks at once."""

    def __init__(self, store: Store, on_change: Callable[[], None]) -> None:
        self.store, self.on_change = store, on_change

    def routes(self) -> list[Route]:
        """Their routes."""
        return [
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.list),
            Route("/v1/batches/{batch_id}", self.retrieve),
            Route("/v1/batches/{batch_id}/errors", self.errors),
            Route("/v1/batches/{batch_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """Make a batch of an uploaded file; its lines are read and asked in the background."""
        asked = await _asked(request)
        seconds = window_s(asked.completion_window)
        if seconds is None:
            raise BadRequest(
                f"completion_window is {asked.completion_window[:20]!r}; give 24h, or hours or days up to 30d",
                "completion_window",
            )
        row = await run_in_threadpool(self._create, owner_of(request), asked, seconds)
        self.on_change()
        return JSONResponse(batch_object(row))

    def _create(self, owner: str, asked: BatchRequest, seconds: int) -> RowMapping:
        with self.store.database.begin() as connection:
            file = files.find(connection, owner, asked.input_file_id)
            if file is None:
                raise NotFound(f"this key has no file {asked.input_file_id!r}", "input_file_id")
            if file["purpose"] != "batch" or file["kind"] != files.STORED:
                raise BadRequest(
                    f"{file['id']} was uploaded for {file['purpose']!r}; upload it with purpose `batch`",
                    "input_file_id",
                )
            return batches.create(
                connection,
                owner,
                seconds,
                endpoint=asked.endpoint,
                input_file_id=file["id"],
                completion_window=asked.completion_window,
                metadata=batches.metadata_of(asked.metadata),
            )

    async def list(self, request: Request) -> Response:
        """A page of the batches of a key."""
        page, owner = page_of(request, MAX_PAGE), owner_of(request)

        def found() -> list[RowMapping]:
            with self.store.database.read() as connection:
                return batches.listed(connection, owner, page)

        return page_object(await run_in_threadpool(found), page, batch_object)

    async def retrieve(self, request: Request) -> Response:
        """One batch."""
        return JSONResponse(batch_object(await self._found(request)))

    async def errors(self, request: Request) -> Response:
        """What lines of a batch failed of, by kind, with an example of each."""
        return await errors_object(self.store, await self._found(request), has_examples=True)

    async def cancel(self, request: Request) -> Response:
        """Let no further line begin; those that run are answered, and kept."""
        await cancel(self.store, await self._found(request))
        self.on_change()
        return await self.retrieve(request)

    async def _found(self, request: Request) -> RowMapping:
        return await found_batch(self.store, owner_of(request), request.path_params["batch_id"])


async def found_batch(store: Store, owner: str | None, batch_id: str) -> RowMapping:
    """A batch of an owner (None: of anybody). Raises NotFound."""

    def found() -> RowMapping | None:
        with store.database.read() as connection:
            return batches.find(connection, owner, batch_id)

    row = await run_in_threadpool(found)
    if row is None:
        whose = "there is no batch" if owner is None else "this key has no batch"
        raise NotFound(f"{whose} {batch_id[:64]!r}", "batch_id")
    return row


async def cancel(store: Store, row: RowMapping) -> None:
    """Cancel a batch. Raises Conflict for one that has ended."""

    def cancelled() -> bool:
        with store.database.begin() as connection:
            return batches.cancel(connection, row["id"])

    if not await run_in_threadpool(cancelled) and row["status"] != "cancelling":
        raise Conflict(f"{row['id']} is {row['status']} and cannot be cancelled any more")


async def errors_object(store: Store, row: RowMapping, has_examples: bool) -> JSONResponse:
    """The kinds of errors of a batch as a list."""

    def found() -> list[dict[str, Any]]:
        with store.database.read() as connection:
            return failures.kinds(connection, row["id"], has_examples)

    return JSONResponse({"object": "list", "data": await run_in_threadpool(found) if row["failed"] else []})


async def _asked(request: Request) -> BatchRequest:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes; a batch's lines go to /v1/files")
    data = read_json(bytes(body))
    try:
        return BatchRequest.model_validate(data)
    except ValidationError as error:
        raise bad_request(error, data) from None
