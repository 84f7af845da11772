"""The pages of batches: the table, one with its errors by kind, its files, and its end."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from lingbi_ui.accounts import forms
from lingbi_ui.accounts.batches.progress import KINDS, STATUSES, Batch, Paces, batch_of
from lingbi_ui.accounts.batches.transfers import Full, Transfers
from lingbi_ui.accounts.client import Found, Refused
from lingbi_ui.accounts.desk import Desk
from lingbi_ui.accounts.entry import BATCHES, Asked
from lingbi_ui.accounts.figures import zone_of

OWN, ALL, FILES, USE = "/v1/batches", "/v1/admin/batches", "/v1/files", "/v1/usage"
HERE = BATCHES.root
BATCH = re.compile(r"batch_\w{1,60}", re.ASCII)
PAGE_ROWS, MAX_NAMES = 50, 1000
LOOK_S = 20  # how often a page that shall be kept up to date is loaded again
WINDOWS = ("24h", "3d", "7d", "30d")
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@dataclass(frozen=True)
class Filter:
    """What is asked for. name: of one batch; after: the id of the last batch of the page before; is_live: whether the page loads itself again."""

    name: str = ""
    owner: str = ""
    status: str = ""
    after: str = ""
    is_live: bool = False

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Filter":
        """From the query of an address; what makes no sense in it is left out."""
        after, status = asked.get("after", ""), asked.get("status", "")
        return cls(
            name=asked.get("name", "") if BATCH.fullmatch(asked.get("name", "")) else "",
            owner=asked.get("owner", "").strip()[:80],
            status=status if status in STATUSES else "",
            after=after if BATCH.fullmatch(after) else "",
            is_live=asked.get("live") == "1",
        )

    def query(self, **changes: Any) -> dict[str, str]:
        """The query that asks for this; without what is as it begins."""
        known = {**vars(self), **changes}
        found = {name: str(known[name]) for name in ("name", "owner", "status", "after") if known[name]}
        return found | ({"live": "1"} if known["is_live"] else {})


class Batches:
    """GET /batches, /batches/batch and /batches/file, and their forms."""

    def __init__(self, desk: Desk, transfers: Transfers):
        self.desk, self.transfers, self.paces = desk, transfers, Paces()

    async def table(self, asked: Asked) -> Response:
        """GET /batches?owner=&status=&after=&live="""
        wanted, is_admin = Filter.of(asked.request.query_params), asked.session.is_admin
        only: dict[str, Any] = {"owner": wanted.owner or None, "status": wanted.status or None} if is_admin else {}
        used, found, files = await asyncio.gather(
            self.desk.get(asked, USE),
            self.desk.get(asked, ALL if is_admin else OWN, limit=PAGE_ROWS, after=wanted.after or None, **only),
            self.desk.get(asked, FILES, purpose="batch", limit=MAX_NAMES),
        )
        values = {
            "wanted": wanted,
            "statuses": STATUSES,
            "rows": [batch_of(told, self.paces) for told in found["data"]],
            "last": found["last_id"] if found["has_more"] else None,
            "names": {file["id"]: file["filename"] for file in files["data"]},
            "windows": WINDOWS,
            "endpoints": ENDPOINTS,
            "seconds": LOOK_S,
        }
        return self._live(self.desk.show(asked, "batches.html", HERE, **values, **_own(used)), wanted)

    async def one(self, asked: Asked) -> Response:
        """GET /batches/batch?name=&live="""
        wanted = Filter.of(asked.request.query_params)
        used = await self.desk.get(asked, USE)
        batch, path = await self._found(asked, wanted.name, used["key"])
        errors, file = await asyncio.gather(
            self.desk.get(asked, f"{path}/errors"), self._input(asked, batch, path.startswith(OWN))
        )
        values = {"batch": batch, "is_own": path.startswith(OWN), "errors": errors["data"], "input": file}
        values["seconds"] = LOOK_S
        return self._live(self.desk.show(asked, "batch.html", HERE, wanted=wanted, **values, **_own(used)), wanted)

    async def file(self, asked: Asked) -> Response:
        """GET /batches/file?name=&kind=: the results, the errors or the input of a batch of one's own."""
        query = asked.request.query_params
        name, kind = query.get("name", ""), query.get("kind", "")
        if not BATCH.fullmatch(name) or kind not in KINDS:
            return self._gone(asked)
        batch = batch_of(await self.desk.get(asked, f"{OWN}/{name}"), self.paces)
        if kind not in batch.files:
            return self._gone(asked)
        headers = self.desk.client.headers_of(asked.session)
        try:
            return await self.transfers.download(
                asked.request, headers, f"{FILES}/{batch.files[kind]}/content", f"{name}_{kind}.jsonl"
            )
        except Full:
            return self.desk.site.tell(asked.request, 429, "transfers_full", HERE)

    async def cancel(self, asked: Asked) -> Response:
        """POST /batches/cancel"""
        name = asked.fields.get("name", "")
        if asked.fields.get("sure") != "1":
            raise forms.Unfit("sure", asked.fields.get("sure", ""))
        if not BATCH.fullmatch(name):
            raise forms.Unfit("name", name)
        await self.desk.change(asked, "POST", f"{ALL if asked.session.is_admin else OWN}/{name}/cancel")
        return self.desk.done(asked, "batch_stopped", name, f"{HERE}/batch", name=name)

    async def _found(self, asked: Asked, name: str, key: str) -> tuple[Batch, str]:
        """The batch of this name, and where the API has it. Raises Refused."""
        if not name:
            raise Refused(404, "an address of a batch ends with its name, as in ?name=batch_0123456789abcdef01234567")
        path = f"{ALL if asked.session.is_admin else OWN}/{name}"
        batch = batch_of(await self.desk.get(asked, path), self.paces)
        return batch, f"{OWN}/{name}" if batch.owner in ("", key) else path

    async def _input(self, asked: Asked, batch: Batch, is_own: bool) -> Found | None:
        """The file that a batch was made of, while it is there."""
        if not is_own:
            return None
        try:
            return await self.desk.get(asked, f"{FILES}/{batch.files['input']}")
        except Refused:
            return None

    def _gone(self, asked: Asked) -> Response:
        return self.desk.site.tell(asked.request, 404, "file_gone", HERE)

    def _live(self, page: Response, wanted: Filter) -> Response:
        """A page that is loaded again by itself, where the visitor wished so."""
        if wanted.is_live:
            page.headers["Refresh"] = str(LOOK_S)
        return page


def _own(used: Found) -> dict[str, Any]:
    """Who looks, and the lab's time zone."""
    return {"name": used["key"], "zone": zone_of(used["time_zone"]), "zone_name": used["time_zone"]}
