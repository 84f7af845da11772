"""/v1/admin/groups: list, make, change and remove groups of keys."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lingbi.accounts.database import Database
from lingbi.accounts.keys import changes, groups
from lingbi.accounts.keys.changes import Change
from lingbi.accounts.keys.forms import group_form, groups_form
from lingbi.accounts.keys.terms import json_limits
from lingbi.accounts.keys.wishes import GROUP_FIELDS, MEMBER_FIELDS, Reader
from lingbi.http.admin.administrators import check_administrator
from lingbi.http.admin.desk import Desk, body_of, unpublished
from lingbi.http.admin.keys import most_listed, sent
from lingbi.http.protocol.accounts import GroupChange, GroupInfo, GroupInfos, NewGroup, RemovedGroup

GROUPS = "/v1/admin/groups"
GROUP = GROUPS + "/{name}"
MEMBER = "member_"


def group_routes(desk: Desk) -> list[Route]:
    """The routes."""
    routes = GroupRoutes(desk)
    return [
        Route(GROUPS, routes.every, methods=["GET"]),
        Route(GROUPS, routes.add, methods=["POST"]),
        Route(GROUP, routes.one, methods=["GET"]),
        Route(GROUP, routes.change, methods=["PATCH"]),
        Route(GROUP, routes.remove, methods=["DELETE"]),
    ]


class GroupRoutes:
    """The endpoints; each raises NotPermitted for a key that is no administrator's."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def every(self, request: Request) -> Response:
        """GET: all groups."""
        check_administrator(request)
        most = most_listed(request)
        found = await self.desk.read(lambda database: groups_form(changes.read(database)))
        return sent(GroupInfos(data=[_told(row) for row in found[:most]]))

    async def one(self, request: Request) -> Response:
        """GET: one group."""
        check_administrator(request)
        name = request.path_params["name"]
        return sent(_told(await self.desk.read(lambda database: _form(database, name))))

    async def add(self, request: Request) -> Response:
        """POST: make a group; answers with it."""
        check_administrator(request)
        body, reader = await body_of(request, NewGroup), self.desk.reader()

        def add(database: Database) -> dict[str, Any]:
            groups.add_group(database, body.name, _change(reader, body))
            return _form(database, body.name)

        return sent(_told(await self.desk.change(request, f"made the group {body.name[:64]!r}", add)), 201)

    async def change(self, request: Request) -> Response:
        """PATCH: change what the keys of a group may do; answers with the group."""
        check_administrator(request)
        name, body, reader = request.path_params["name"], await body_of(request, GroupChange), self.desk.reader()

        def change(database: Database) -> dict[str, Any]:
            groups.change_group(database, name, _change(reader, body))
            return _form(database, name)

        what = f"changed the group {name[:64]!r}: {', '.join(sorted(body.model_fields_set))}"
        return sent(_told(await self.desk.change(request, what, change)))

    async def remove(self, request: Request) -> Response:
        """DELETE: remove a group; with ?keep_keys=true though it has keys, which go on without its limits."""
        check_administrator(request)
        name, keeps = request.path_params["name"], request.query_params.get("keep_keys") == "true"

        def remove(database: Database) -> int:
            return groups.remove_group(database, name, keeps)

        count = await self.desk.change(request, f"removed the group {name[:64]!r}", remove)
        return sent(RemovedGroup(name=name, keys=count))


def _told(row: dict[str, Any]) -> GroupInfo:
    return GroupInfo(**row, unpublished_models=unpublished(row["models"]))


def _form(database: Database, name: str) -> dict[str, Any]:
    records = changes.read(database)
    groups.check_group(records, name)
    return group_form(records, name)


def _change(reader: Reader, body: GroupChange) -> Change:
    given = body.model_dump(exclude_unset=True)
    own = {name: given[name] for name in GROUP_FIELDS if name in given}
    each = {name: given[MEMBER + name] for name in MEMBER_FIELDS if MEMBER + name in given}
    return reader.group(own, json_limits(given.get("limits", {})), each, json_limits(given.get("members", {})))
