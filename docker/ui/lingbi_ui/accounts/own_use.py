"""GET /usage: what a visitor with a login has used, and what is left."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lingbi_ui.accounts.client import Away, Client, Found, Refused
from lingbi_ui.accounts.figures import zone_of
from lingbi_ui.accounts.rows import Limit, in_order
from lingbi_ui.accounts.site import Site, go_on
from lingbi_ui.guard.sessions import Sessions

PERIODS = (("today", "day"), ("own_month", "month"))  # the name of the words, and of the API's period


class OwnUse:
    """sessions: of the page's logins; None where it asks for none."""

    def __init__(self, site: Site, client: Client, sessions: Sessions | None):
        self.site, self.client, self.sessions = site, client, sessions

    async def page(self, request: Request) -> Response:
        """GET /usage"""
        if self.sessions is None:
            return self.site.tell(request, 404, "own_none", "/")
        name = self.sessions.name_in(request.scope)
        if name is None:
            return go_on(request, "/")
        try:
            found = await self.client.get(self.client.headers_of_visitor(name), "/v1/usage")
        except Away:
            return self.site.tell(request, 503, "away", "/usage")
        except Refused as refused:
            return self.site.refused(request, refused, "/", name)
        return self.site.show(request, "usage.html", 200, name=name, **shown(found))


def shown(found: Found) -> dict[str, Any]:
    """What the page shows of the API's answer."""
    return {
        "limits": in_order(map(_limit, found["limits"])),
        "periods": [(word, found["used"][period]) for word, period in PERIODS],
        "zone": zone_of(found["time_zone"]),
        "zone_name": found["time_zone"],
    }


def _limit(told: Found) -> Limit:
    names = ("subject", "measure", "period", "most", "used", "remaining", "resets_at")
    return Limit(*map(told.__getitem__, names))
