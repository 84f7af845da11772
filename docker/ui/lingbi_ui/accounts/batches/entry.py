"""The way in to /batches: with a key, or with a login of the page."""

import time

from starlette.requests import Request

from lingbi_ui.accounts.client import Client
from lingbi_ui.accounts.entry import BATCHES, Checks, Entry
from lingbi_ui.accounts.sessions import Session, Sessions
from lingbi_ui.accounts.site import Site
from lingbi_ui.guard.sessions import Sessions as Logins


class BatchEntry(Entry):
    """logins: of the page; None where it asks for none. Whoever has logged in with a key too sees that key's batches."""

    def __init__(self, site: Site, client: Client, sessions: Sessions, checks: Checks, logins: Logins | None):
        super().__init__(BATCHES, site, client, sessions, checks)
        self.logins, self.has_logins = logins, logins is not None
        self._visits: dict[str, Session] = {}  # of logins; how long one lasts is the page's to say

    def session_of(self, request: Request) -> Session | None:
        """That of a key, else that of a login of the page."""
        return super().session_of(request) or self._visit(request)

    def _visit(self, request: Request) -> Session | None:
        name = self.logins.name_in(request.scope) if self.logins else None
        if name is None:
            return None
        now = time.monotonic()
        return self._visits.setdefault(name, Session("", now, now, visitor=name))
