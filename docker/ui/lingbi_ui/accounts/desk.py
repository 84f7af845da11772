"""What the pages behind a login share: the API as the session may ask it, and the session's own parts of a page."""

import asyncio
import datetime
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from lingbi_ui.accounts import quota
from lingbi_ui.accounts.client import Client, Found
from lingbi_ui.accounts.entry import ADMIN, BATCHES, Asked
from lingbi_ui.accounts.figures import zone_of
from lingbi_ui.accounts.rows import Limit, Row, limits_of, row_of
from lingbi_ui.accounts.sessions import Session
from lingbi_ui.accounts.site import Site, go_on
from lingbi_ui.accounts.use import by

KEYS, GROUPS, USAGE, QUEUE = (f"/v1/admin/{name}" for name in ("keys", "groups", "usage", "queue"))
Menu = tuple[tuple[str, str], ...]  # path and word of each entry
CHAT = ("/", "to_chat")
OF_BATCHES = (BATCHES.root, "batches")
OF_ADMINISTRATORS: Menu = (
    ("/admin", "overview"),
    ("/admin/keys", "keys"),
    ("/admin/groups", "groups"),
    OF_BATCHES,
    CHAT,
)


@dataclass(frozen=True)
class Group:
    """A group of keys; concurrency: of all together, member_concurrency: of each; limits: of both kinds."""

    name: str
    note: str
    keys: int
    concurrency: int | None
    member_concurrency: int | None
    models: tuple[str, ...] | None
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Known:
    """All keys with their use of this month, all groups, and the lab's time zone."""

    rows: list[Row]
    groups: list[Group]
    zone: datetime.tzinfo

    @property
    def group_names(self) -> list[str]:
        return [group.name for group in self.groups]


class Desk:
    """Shows pages with the menu of whoever is logged in, and asks the API."""

    def __init__(self, site: Site, client: Client):
        self.site, self.client = site, client

    def show(self, asked: Asked, template: str, here: str, /, **values: Any) -> Response:
        """A page; what the session has to say once stands at its top."""
        session = asked.session
        own: dict[str, Any] = {"here": here, "form": session.form, "menu": menu_of(session)}
        own |= {"said": session.take_said(), "shown": session.take_shown()}
        own |= {
            "visitor": session.visitor,
            "is_admin": session.is_admin,
            "area": ADMIN if session.is_admin else BATCHES,
        }
        return self.site.show(asked.request, template, 200, **values, **own)

    def done(self, asked: Asked, word: str, name: str, path: str, /, **query: str) -> Response:
        """On to a page, which says once what was done with this name."""
        asked.session.said = word, {"name": name}
        return go_on(asked.request, path, **query)

    def changed(self, asked: Asked, told: Found, path: str, /) -> Response:
        """On to the page of a key or group, as the API tells it; that page says once which of its models may be slips."""
        name, unpublished = told["name"], told["unpublished_models"]
        answer = self.done(asked, "changed", name, path, name=name)
        if unpublished:
            asked.session.said = "changed_unpublished", {"name": name, "models": ", ".join(unpublished)}
        return answer

    async def get(self, asked: Asked, path: str, /, **parameters: str | int | None) -> Found:
        """A GET of the API. Raises Refused and Away, as all that follow."""
        return await self.client.get(self.client.headers_of(asked.session), path, **parameters)

    async def change(self, asked: Asked, method: str, path: str, body: Found | None = None) -> Found:
        """A change through the API."""
        return await self.client.send(self.client.headers_of(asked.session), method, path, body)

    async def report(self, asked: Asked, names: str, since: str, last: str, most: int | None = None) -> Found:
        """The API's rows of use by these names, from a day to another, both included; at most so many."""
        return await self.get(asked, USAGE, by=names, since=since, until=last, top=most)

    async def zone(self, asked: Asked) -> tuple[datetime.tzinfo, str]:
        """The lab's time zone, by which its days and months begin, and its name."""
        name: str = (await self.report(asked, "day", "today", "today"))["time_zone"]
        return zone_of(name), name

    async def known(self, asked: Asked) -> Known:
        """Everything that the tables show."""
        zone, _ = await self.zone(asked)
        today = datetime.datetime.now(zone).date().isoformat()
        keys, groups, month, day = await asyncio.gather(
            self.get(asked, KEYS),
            self.get(asked, GROUPS),
            self._of_keys(asked, f"{today[:7]}-01", today),
            self._of_keys(asked, today, today),
        )
        return _known(keys["data"], groups["data"], {"month": month["data"], "day": day["data"]}, zone)

    async def _of_keys(self, asked: Asked, since: str, last: str) -> Found:
        """Use by key and status; of more keys than fit one answer by key alone, refused requests included."""
        found = await self.report(asked, "key,status", since, last)
        return await self.report(asked, "key", since, last) if found["has_more"] else found


def menu_of(session: Session) -> Menu:
    """The pages that a session may see."""
    if session.is_admin:
        return OF_ADMINISTRATORS
    return (OF_BATCHES, ("/usage", "own_title"), CHAT) if session.visitor else (OF_BATCHES, CHAT)


def _known(keys: list[Found], told: list[Found], reports: dict[str, list[Found]], zone: datetime.tzinfo) -> Known:
    """The tables of what the API tells. reports: of use by key and status, for this month and this day."""
    used = quota.used_of(reports, {key["name"]: key["group"] or "" for key in keys})
    use = by(reports["month"], "key")
    rows = [row_of(key, use.get(key["name"], {})) for key in keys]
    rows = [replace(row, limits=quota.told(row.limits, row.name, row.group, used)) for row in rows]
    return Known(rows, [_group(group, used) for group in told], zone)


def _group(told: Found, used: quota.Used) -> Group:
    limits = (*limits_of(told["limits"], "group"), *limits_of(told["members"], "member"))
    return Group(
        told["name"],
        told["note"],
        len(told["keys"]),
        told["concurrency"],
        told["member_concurrency"],
        tuple(told["models"]) if told["models"] is not None else None,
        quota.told(limits, "", told["name"], used),
    )
