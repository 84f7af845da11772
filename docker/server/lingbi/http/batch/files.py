"""The routes of /v1/files, as in OpenAI's reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.engine import RowMapping
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lingbi.accounts.facts import KeyFacts
from lingbi.api_errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    InsufficientStorage,
    NotFound,
    Refusal,
    StorageQuota,
)
from lingbi.batch import claims, files
from lingbi.batch.files import Page
from lingbi.batch.states import file_object
from lingbi.batch.store import Store
from lingbi.batch.uploads import GivenUp, Incoming, Room, remove
from lingbi.http.batch.upload import Upload, receive
from lingbi.http.middleware.door import ACCOUNT
from lingbi.http.protocol.numbers import number_of

PURPOSES = ("batch", "vision", "user_data")
MOST_BYTES = "x-lingbi-most-bytes"  # the header of who passes an upload on, as the page does
SHORTEST_LIFE_S, MAX_PAGE, PIECE_BYTES = 3600, 10_000, 1 << 20


def owner_of(request: Request) -> str:
    """The name of the key that asks."""
    account: KeyFacts = request.scope[ACCOUNT]
    return account.name


def page_of(request: Request, most: int = MAX_PAGE) -> Page:
    """The part of a list that is asked for. Raises BadRequest."""
    query = request.query_params
    limit, order = number_of(query.get("limit", "20"), "limit", 1, most), query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest(f"order is {order[:20]!r}; give asc or desc", "order")
    return Page(limit, query.get("after"), order == "asc")


def page_object(rows: list[RowMapping], page: Page, show: Callable[[RowMapping], dict[str, Any]]) -> JSONResponse:
    """A page of a list; the row that is one too many says that there are more."""
    data = [show(row) for row in rows[: page.limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return JSONResponse({"object": "list", "data": data, **ends, "has_more": len(rows) > page.limit})


class Files:
    """The endpoints. What takes the database or the disk is done in threads."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def routes(self) -> list[Route]:
        """Their routes."""
        return [
            Route("/v1/files", self.create, methods=["POST"]),
            Route("/v1/files", self.list),
            Route("/v1/files/{file_id}", self.retrieve),
            Route("/v1/files/{file_id}", self.delete, methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", self.content),
        ]

    async def create(self, request: Request) -> Response:
        """Keep an uploaded file."""
        incoming = Incoming(self.store, owner_of(request), files.new_id(files.PREFIX))
        try:
            room = await run_in_threadpool(incoming.begin, _declared_bytes(request))
            columns = self._columns(await receive(request, incoming, room.most_bytes, self._too_large(room)))
            await run_in_threadpool(incoming.finish)
            row = await run_in_threadpool(self._keep, incoming, columns)
        except BaseException as error:
            await run_in_threadpool(incoming.discard)
            if isinstance(error, OSError):
                raise _no_room(error) from None
            if isinstance(error, GivenUp):
                raise BodyTimeout("the upload stood still for too long; send it again") from None
            raise
        return JSONResponse(file_object(row))

    def _too_large(self, room: Room) -> Refusal:
        """The refusal of a file that is larger than there is room for."""
        rules = self.store.rules
        if rules.owner_bytes - room.held_bytes < rules.file_bytes:
            return StorageQuota(
                f"the files of this key, with those that are being uploaded, take {room.held_bytes >> 20} MiB, and with this "
                f"one more than the {rules.owner_bytes >> 20} MiB that are allowed (LINGBI_FILES_MIB); delete some",
                "file",
            )
        most = rules.file_bytes >> 20
        return BodyTooLarge(f"the file is larger than {most} MiB (LINGBI_MAX_FILE_MIB); split it", "file")

    def _columns(self, upload: Upload) -> dict[str, Any]:
        """What is noted of an uploaded file. Raises BadRequest."""
        fields, rules = upload.fields, self.store.rules
        purpose = fields.get("purpose", "")
        if purpose not in PURPOSES:
            raise BadRequest(f"purpose is {purpose[:60]!r}; give one of {', '.join(PURPOSES)}", "purpose")
        life_s = rules.life_s
        if asked := fields.get("expires_after[seconds]"):
            life_s = float(number_of(asked, "expires_after.seconds", SHORTEST_LIFE_S, int(rules.life_s)))
        return {
            "filename": upload.filename,
            "purpose": purpose,
            "bytes": upload.size,
            "life_s": life_s,
        }

    def _keep(self, incoming: Incoming, columns: dict[str, Any]) -> RowMapping:
        with self.store.database.begin() as connection:
            return incoming.keep(connection, **columns)

    async def list(self, request: Request) -> Response:
        """A page of the files of a key."""
        page, owner, purpose = page_of(request), owner_of(request), request.query_params.get("purpose")

        def found() -> list[RowMapping]:
            with self.store.database.read() as connection:
                return files.listed(connection, owner, page, purpose)

        return page_object(await run_in_threadpool(found), page, file_object)

    async def retrieve(self, request: Request) -> Response:
        """One file's facts."""
        return JSONResponse(file_object(await self._found(request)))

    async def delete(self, request: Request) -> Response:
        """Forget a file and its content."""
        row = await self._found(request)
        await run_in_threadpool(remove, self.store, row)
        return JSONResponse({"id": row["id"], "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """A file's content."""
        row = await self._found(request)
        if row["kind"] != files.STORED:
            lines = claims.results(self.store.database, row["batch_id"], row["kind"])
            return StreamingResponse(lines, media_type="application/jsonl")
        try:
            pieces = await run_in_threadpool(contents, self.store, row["id"])
        except FileNotFoundError:
            raise NotFound(f"the content of {row['id']} is gone; upload it again") from None
        size = {"Content-Length": str(row["bytes"])}
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=size)

    async def _found(self, request: Request) -> RowMapping:
        owner, file_id = owner_of(request), request.path_params["file_id"]

        def found() -> RowMapping | None:
            with self.store.database.read() as connection:
                return files.find(connection, owner, file_id)

        row = await run_in_threadpool(found)
        if row is None:
            raise NotFound(f"this key has no file {file_id[:64]!r}", "file_id")
        return row


def _declared_bytes(request: Request) -> int | None:
    """The length of a body, or what it has at most, where it comes in pieces; None where neither is said."""
    declared = request.headers.get("content-length") or request.headers.get(MOST_BYTES, "")
    return int(declared) if declared.isdecimal() and len(declared) < 19 else None


def _no_room(error: OSError) -> InsufficientStorage:
    return InsufficientStorage(f"the file could not be kept: {error.strerror}; tell the administrator")


def contents(store: Store, file_id: str) -> Iterator[bytes]:
    """A stored file, piece by piece. Raises FileNotFoundError at once."""
    file = store.storage.open(file_id)

    def pieces() -> Iterator[bytes]:
        with contextlib.closing(file):
            while piece := file.read(PIECE_BYTES):
                yield piece

    return pieces()
