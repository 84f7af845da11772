"""The pages of groups of keys, and of what their keys may use together and each for itself."""

from typing import Any

from starlette.responses import Response

from lingbi_ui.accounts import forms
from lingbi_ui.accounts.desk import GROUPS, Desk
from lingbi_ui.accounts.entry import Asked
from lingbi_ui.accounts.keys import path_of, set_limits

HERE = "/admin/groups"


class Groups:
    """GET /admin/groups, GET /admin/group and their forms."""

    def __init__(self, desk: Desk):
        self.desk = desk

    async def table(self, asked: Asked) -> Response:
        """GET /admin/groups"""
        known = await self.desk.known(asked)
        return self.desk.show(asked, "groups.html", HERE, groups=known.groups)

    async def one(self, asked: Asked) -> Response:
        """GET /admin/group?name="""
        name = asked.request.query_params.get("name", "")
        known = await self.desk.known(asked)
        group = next((group for group in known.groups if group.name == name), None)
        if group is None:
            return self.desk.site.tell(asked.request, 404, "gone_404", HERE)
        return self.desk.show(asked, "group.html", HERE, group=group, limits=set_limits(group.limits))

    async def add(self, asked: Asked) -> Response:
        """POST /admin/groups"""
        name = asked.fields.get("name", "")
        await self.desk.change(asked, "POST", GROUPS, {"name": name, "note": asked.fields.get("note", "")})
        return self.desk.done(asked, "group_made", name, "/admin/group", name=name)

    async def change(self, asked: Asked) -> Response:
        """POST /admin/group/change"""
        fields = asked.fields
        body: dict[str, Any] = {"note": fields.get("note", ""), "models": forms.names(fields, "models")}
        body |= {name: forms.whole(fields, name) for name in ("concurrency", "member_concurrency")}
        body |= {"limits": forms.limits(fields, "group"), "members": forms.limits(fields, "member")}
        told = await self.desk.change(asked, "PATCH", path_of(asked, GROUPS), body)
        return self.desk.changed(asked, told, "/admin/group")

    async def remove(self, asked: Asked) -> Response:
        """POST /admin/group/remove"""
        if asked.fields.get("sure") != "1":
            raise forms.Unfit("sure", asked.fields.get("sure", ""))
        await self.desk.change(asked, "DELETE", f"{path_of(asked, GROUPS)}?keep_keys=true")
        return self.desk.done(asked, "group_removed", asked.fields["name"], HERE)
