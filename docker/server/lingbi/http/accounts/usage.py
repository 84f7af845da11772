"""GET /v1/usage: what a key has used, and what is left of its limits."""

import asyncio
import time

from starlette.requests import Request

from lingbi.accounts.database import NO_DATABASE, DatabaseAway
from lingbi.accounts.facts import KeyFacts
from lingbi.accounts.quotas.own_report import own_report
from lingbi.http.admission.quota_answers import limit_of
from lingbi.http.middleware.door import ACCOUNT
from lingbi.http.protocol.usage import Usage
from lingbi.http.service import Service


async def usage(service: Service, request: Request) -> Usage:
    """The use of the key that asks; of a visitor's, where the page asks for one. Raises DatabaseAway."""
    key: KeyFacts = request.scope[ACCOUNT]
    if service.quotas is None:
        raise DatabaseAway(NO_DATABASE)
    holds = service.quotas.holds
    used = await asyncio.to_thread(own_report, holds.database, key.name, time.time(), holds.zone)
    standings = await service.quotas.standings(key)
    limits = [limit_of(standing) for standing in standings]
    return Usage(key=key.name, group=key.group, time_zone=str(holds.zone), used=used, limits=limits)
