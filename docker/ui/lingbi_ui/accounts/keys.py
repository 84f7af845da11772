"""The pages of keys: the table of all, one with its use, and what can be done with it."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from lingbi_ui.accounts import figures, forms
from lingbi_ui.accounts.desk import KEYS, Desk, Known
from lingbi_ui.accounts.entry import Asked
from lingbi_ui.accounts.rows import STATES, Filter, Limit, Row, page_of
from lingbi_ui.accounts.use import summed

HERE = "/admin/keys"
COLUMNS = (
    ("name", "name"),
    ("owner", "owner"),
    ("group", "group"),
    ("use", "this_month"),
    ("limits", "limits"),
    ("ends", "ends"),
    ("state", "state"),
)


class Keys:
    """GET /admin/keys, GET /admin/key and their forms."""

    def __init__(self, desk: Desk):
        self.desk = desk

    async def table(self, asked: Asked) -> Response:
        """GET /admin/keys?name=&owner=&group=&state=&sort=&down=&page="""
        known = await self.desk.known(asked)
        wanted = Filter.of(asked.request.query_params)
        return self.desk.show(
            asked,
            "keys.html",
            HERE,
            wanted=wanted,
            page=page_of(known.rows, wanted),
            groups=known.group_names,
            states=STATES,
            columns=COLUMNS,
            zone=known.zone,
        )

    async def one(self, asked: Asked) -> Response:
        """GET /admin/key?name="""
        name = asked.request.query_params.get("name", "")
        known = await self.desk.known(asked)
        row = next((row for row in known.rows if row.name == name), None)
        if row is None:
            return self.desk.site.tell(asked.request, 404, "gone_404", HERE)
        return self.desk.show(
            asked,
            "key.html",
            HERE,
            row=row,
            use=row.use or summed(()),
            groups=known.group_names,
            limits=set_limits(row.own_limits),
            ends=_end_field(row, known),
            zone=known.zone,
        )

    async def add(self, asked: Asked) -> Response:
        """POST /admin/keys: the page of the new key then shows it once."""
        fields = asked.fields
        body: dict[str, Any] = {"name": fields.get("name", ""), "is_admin": fields.get("is_admin") == "1"}
        body |= _told(fields) | {"ends_at": fields.get("ends") or None}
        made = await self.desk.change(asked, "POST", KEYS, body)
        return self._shown(asked, "made", made)

    async def rotate(self, asked: Asked) -> Response:
        """POST /admin/key/rotate"""
        overlap_h = forms.whole(asked.fields, "overlap_h") or 0
        made = await self.desk.change(asked, "POST", f"{path_of(asked)}/rotate", {"overlap_s": overlap_h * 3600})
        return self._shown(asked, "rotated", made)

    async def change(self, asked: Asked) -> Response:
        """POST /admin/key/change"""
        fields = asked.fields
        body = _told(fields) | {"models": forms.names(fields, "models")}
        body |= {name: forms.whole(fields, name) for name in ("concurrency", "weight")}
        if fields.get("ends") != fields.get("ends_before"):  # an end that is past, or within a day, may stay as it is
            body["ends_at"] = fields.get("ends") or None
        told = await self.desk.change(asked, "PATCH", path_of(asked), body)
        return self.desk.changed(asked, told, "/admin/key")

    async def limit(self, asked: Asked) -> Response:
        """POST /admin/key/limits"""
        await self.desk.change(asked, "PATCH", path_of(asked), {"limits": forms.limits(asked.fields, "key")})
        return self._changed(asked, "changed")

    async def end(self, asked: Asked) -> Response:
        """POST /admin/key/end"""
        if asked.fields.get("sure") != "1":
            raise forms.Unfit("sure", asked.fields.get("sure", ""))
        await self.desk.change(asked, "POST", f"{path_of(asked)}/revoke")
        return self._changed(asked, "revoked")

    def _shown(self, asked: Asked, word: str, made: dict[str, Any]) -> Response:
        asked.session.shown = str(made["name"]), str(made["key"])
        return self.desk.done(asked, word, str(made["name"]), "/admin/key", name=str(made["name"]))

    def _changed(self, asked: Asked, word: str) -> Response:
        return self.desk.done(asked, word, asked.fields["name"], "/admin/key", name=asked.fields["name"])


def _told(fields: forms.Fields) -> dict[str, Any]:
    """What both forms of a key say of it."""
    return {"owner": fields.get("owner", ""), "note": fields.get("note", ""), "group": fields.get("group") or None}


def path_of(asked: Asked, within: str = KEYS) -> str:
    """The API's address of the key, or the group, that a form names. Raises Unfit where it names none."""
    name = asked.fields.get("name", "")
    if {"", ".", ".."} & set(name.split("/")):  # these mean something else in an address
        raise forms.Unfit("name", name)
    return f"{within}/{quote(name)}"


def set_limits(limits: tuple[Limit, ...]) -> dict[tuple[str, str, str], int]:
    """{(subject kind, measure, period): the most}, for a form's fields."""
    return {(one.subject_kind, one.measure, one.period): one.most for one in limits}


def _end_field(row: Row, known: Known) -> str:
    """The last day of a key, for a form's field."""
    return figures.last_day(row.ends_at, known.zone).partition(" ")[0] if row.ends_at is not None else ""
