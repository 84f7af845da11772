"""A batch from the form of /batches: its file goes on to the API while it comes, and then the batch is made of it."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lingbi_ui.accounts.batches.pages import FILES, HERE, OWN
from lingbi_ui.accounts.batches.transfers import Full, Transfers
from lingbi_ui.accounts.client import Away, Found, Refused
from lingbi_ui.accounts.desk import Desk
from lingbi_ui.accounts.entry import Asked, Entry, is_same
from lingbi_ui.guard.parts import Parts, Piece
from lingbi_ui.guard.questions import Unfit

UPLOAD_S = 3600.0  # for a whole file


class Submission:
    """POST /batches/submit"""

    def __init__(self, entry: Entry, desk: Desk, transfers: Transfers):
        self.entry, self.desk, self.transfers = entry, desk, transfers

    async def submit(self, request: Request) -> Response:
        """Takes the form, whose short fields stand before its file."""
        session = self.entry.session_of(request)
        if session is None:
            return self.entry.refuse(request, 401, "not_in")
        try:
            return await asyncio.wait_for(self._submit(Asked(request, session, {})), UPLOAD_S)
        except Unfit:
            return self.entry.refuse(request, 400, "batch_unfit")
        except Full:
            return self.entry.refuse(request, 429, "transfers_full")
        except (ClientDisconnect, asyncio.TimeoutError):
            return self.entry.refuse(request, 408, "batch_late")
        except Away:
            return self.entry.refuse(request, 503, "away")
        except Refused as refused:
            return self.entry.site.refused(request, refused, self.entry.area.root, session.visitor)

    async def _submit(self, asked: Asked) -> Response:
        parts = Parts(asked.request.headers.get("content-type", ""), 1)
        pieces = _pieces(asked.request, parts)
        first = await anext(pieces, None)
        if not is_same(parts.fields.get("form", ""), asked.session.form):
            return self.entry.refuse(asked.request, 403, "form_old")
        if first is None or not first.name:
            raise Unfit
        headers = self.desk.client.headers_of(asked.session)
        file = await self.transfers.upload(asked.request, headers, first.name, _content(pieces, parts))
        batch = await self._made(asked, file["id"], parts.fields)
        return self.desk.done(asked, "batch_made", first.name, f"{HERE}/batch", name=batch["id"])

    async def _made(self, asked: Asked, file_id: str, fields: dict[str, str]) -> Found:
        """The batch; where the API makes none, its file goes too."""
        body = {
            "input_file_id": file_id,
            "endpoint": fields.get("endpoint", ""),
            "completion_window": fields.get("window", ""),
        }
        try:
            return await self.desk.change(asked, "POST", OWN, body)
        except Refused:
            await self.desk.change(asked, "DELETE", f"{FILES}/{file_id}")
            raise


async def _pieces(request: Request, parts: Parts) -> AsyncIterator[Piece]:
    """The form's file, piece by piece. Raises Unfit."""
    async for chunk in request.stream():
        for piece in parts.feed(chunk):
            yield piece


async def _content(pieces: AsyncIterator[Piece], parts: Parts) -> AsyncIterator[bytes]:
    """The bytes of the file, up to its end. Raises Unfit where that does not come."""
    async for piece in pieces:
        if piece.data:
            yield piece.data
    if not parts.is_whole:
        raise Unfit
