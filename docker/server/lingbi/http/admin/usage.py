"""GET /v1/admin/usage: what was used, by whatever it is known by."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from starlette.requests import Request

from lingbi.accounts.database import NO_DATABASE, DatabaseAway
from lingbi.accounts.opening import zone_of
from lingbi.accounts.usage.reports import DIMENSIONS, FILTERS, Question, Report, answer, question
from lingbi.accounts.usage.spans import FORMS, span_of
from lingbi.api_errors import BadRequest
from lingbi.errors import ConfigurationError
from lingbi.http.admin.administrators import check_administrator
from lingbi.http.protocol.numbers import number_of
from lingbi.http.protocol.usage import UsageList, UsageRow
from lingbi.http.service import Service

MOST_ROWS, MOST_TOP = 10_000, 999_999
PARAMETERS = {
    "by": f"dimensions with commas: {', '.join(DIMENSIONS)}; key where it is missing",
    "since": f"the first: {FORMS}",
    "until": "the last, included; now where it is missing",
    "top": "only so many rows, those with most tokens",
} | {name: f"only of this {name}" for name in FILTERS}


async def admin_usage(service: Service, request: Request) -> UsageList:
    """A report. Raises NotPermitted, BadRequest and DatabaseAway."""
    check_administrator(request)
    if service.database is None:
        raise DatabaseAway(NO_DATABASE)
    asked, zone, database = asked_of(service, request), zone_of(service.settings), service.database
    report = await asyncio.to_thread(answer, database, asked, zone)
    return shown(report, zone.key)


def asked_of(service: Service, request: Request) -> Question:
    """The question of a request's parameters. Raises BadRequest, which names what is wrong."""
    given = dict(request.query_params)
    unknown = next((name for name in given if name not in PARAMETERS), None)
    if unknown is not None:
        raise BadRequest(f"{unknown[:80]!r} is no parameter; there are {', '.join(PARAMETERS)}", unknown[:80])
    top = number_of(given["top"], "top", 1, MOST_TOP) if "top" in given else None
    try:
        span = span_of(given.get("since"), given.get("until"), time.time(), zone_of(service.settings))
        only = {name: given.get(name) for name in FILTERS}
        asked = question(given.get("by", "key"), span, only, top)
    except ConfigurationError as error:
        raise BadRequest(str(error), str(error).split()[0]) from None
    return replace(asked, most_rows=MOST_ROWS)


def shown(report: Report, time_zone: str) -> UsageList:
    """A report in the API's form."""
    rows = [UsageRow(**row, gpu_seconds=row["gpu_ms"] / 1000) for row in report.rows]
    return UsageList(time_zone=time_zone, has_more=report.is_cut, data=rows)
