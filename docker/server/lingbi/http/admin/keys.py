"""/v1/admin/keys: list, make, change, rotate and end API keys."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lingbi.accounts.database import Database
from lingbi.accounts.keys import changes
from lingbi.accounts.keys.changes import Unknown
from lingbi.accounts.keys.forms import key_form, keys_form
from lingbi.accounts.keys.terms import json_limits, overlap_of
from lingbi.accounts.keys.wishes import KEY_FIELDS
from lingbi.batch.owned import add_key
from lingbi.http.admin.administrators import check_administrator
from lingbi.http.admin.desk import Desk, body_of, unpublished
from lingbi.http.protocol.accounts import KeyChange, KeyInfo, KeyInfos, MadeKey, NewKey, Nothing, Rotation
from lingbi.http.protocol.numbers import number_of

log = logging.getLogger(__name__)
KEYS = "/v1/admin/keys"
KEY = KEYS + "/{name:path}"  # a visitor's account has a slash in its name
ROTATE, REVOKE = f"{KEY}/rotate", f"{KEY}/revoke"
MOST_LISTED = 100_000


def key_routes(desk: Desk) -> list[Route]:
    """The routes; those that do something with a key stand before that of the key itself."""
    routes = KeyRoutes(desk)
    return [
        Route(KEYS, routes.every, methods=["GET"]),
        Route(KEYS, routes.add, methods=["POST"]),
        Route(ROTATE, routes.rotate, methods=["POST"]),
        Route(REVOKE, routes.revoke, methods=["POST"]),
        Route(KEY, routes.one, methods=["GET"]),
        Route(KEY, routes.change, methods=["PATCH"]),
    ]


class KeyRoutes:
    """The endpoints; each raises NotPermitted for a key that is no administrator's."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def every(self, request: Request) -> Response:
        """GET: all keys, or those of a group (?group=NAME), at most ?limit=N."""
        check_administrator(request)
        group, most = request.query_params.get("group"), most_listed(request)
        found = await self.desk.read(lambda database: keys_form(changes.read(database), self.desk.now()))
        rows = [row for row in found if group is None or row["group"] == group]
        return sent(KeyInfos(data=[_told(row) for row in rows[:most]]))

    async def one(self, request: Request) -> Response:
        """GET: one key."""
        check_administrator(request)
        return sent(_told(await self.desk.read(partial(self._form, name=request.path_params["name"]))))

    async def add(self, request: Request) -> Response:
        """POST: make a key; its answer is the only one that shows it."""
        check_administrator(request)
        body = await body_of(request, NewKey)
        reader = self.desk.reader()

        def add(database: Database) -> str:
            key, taken = add_key(database, body.name, reader.key(*_wishes(body)))
            if taken:
                log.info("removed of the former holder of the key %s: %s", body.name, taken)
            return key

        key = await self.desk.change(request, f"made the key {body.name[:64]!r}", add)
        return sent(MadeKey(name=body.name, key=key), 201)

    async def change(self, request: Request) -> Response:
        """PATCH: change what a key may do, or what is noted of it; answers with the key."""
        check_administrator(request)
        name, body = request.path_params["name"], await body_of(request, KeyChange)
        reader = self.desk.reader()

        def change(database: Database) -> dict[str, Any]:
            fields, limits = _wishes(body)
            if "ends_at" in fields and fields["ends_at"] == self._form(database, name)["ends_at"]:
                del fields["ends_at"]  # it may be past by now, and stays as it is
            changes.change_key(database, name, reader.key(fields, limits))
            return self._form(database, name)

        what = f"changed the key {name[:64]!r}: {', '.join(sorted(body.model_fields_set))}"
        return sent(_told(await self.desk.change(request, what, change)))

    async def rotate(self, request: Request) -> Response:
        """POST: another secret for a key."""
        check_administrator(request)
        name, body = request.path_params["name"], await body_of(request, Rotation)

        def rotate(database: Database) -> str:
            return changes.rotate_key(database, name, overlap_of(body.overlap_s))

        key = await self.desk.change(request, f"rotated the key {name[:64]!r}", rotate)
        return sent(MadeKey(name=name, key=key))

    async def revoke(self, request: Request) -> Response:
        """POST: end a key now; answers with the key."""
        check_administrator(request)
        await body_of(request, Nothing)
        name = request.path_params["name"]

        def revoke(database: Database) -> dict[str, Any]:
            changes.revoke_key(database, name)
            return self._form(database, name)

        return sent(_told(await self.desk.change(request, f"revoked the key {name[:64]!r}", revoke)))

    def _form(self, database: Database, name: str) -> dict[str, Any]:
        records = changes.read(database)
        if name not in records.keys:
            raise Unknown(f"there is no key {name[:100]!r}; GET {KEYS} lists all")
        return key_form(records, name, self.desk.now())


def sent(answer: BaseModel, status: int = 200) -> JSONResponse:
    """An answer as JSON, which nobody between keeps."""
    return JSONResponse(answer.model_dump(), status, {"Cache-Control": "no-store"})


def most_listed(request: Request) -> int:
    """The number in ?limit=. Raises BadRequest."""
    return number_of(request.query_params.get("limit", str(MOST_LISTED)), "limit", 1, MOST_LISTED)


def _told(row: dict[str, Any]) -> KeyInfo:
    return KeyInfo(**row, unpublished_models=unpublished(row["models"]))


def _wishes(body: KeyChange) -> tuple[dict[str, Any], dict[tuple[str, str], int | None]]:
    given = body.model_dump(exclude_unset=True)
    return {name: given[name] for name in given if name in KEY_FIELDS}, json_limits(given.get("limits", {}))
