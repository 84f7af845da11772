"""The first page for administrators: a table of sums, the trend, who uses most, models, and how the servers are."""

import asyncio
import datetime

from starlette.responses import Response

from lingbi_ui.accounts import figures
from lingbi_ui.accounts.desk import QUEUE, Desk
from lingbi_ui.accounts.entry import Asked
from lingbi_ui.accounts.forms import Unfit
from lingbi_ui.accounts.report import BY, MONTH, days_of, file_of, months
from lingbi_ui.accounts.site import HEADERS, language
from lingbi_ui.accounts.use import CHARTS, TOP, by, span_of, summed, top, trend
from lingbi_ui.words import WORDS
from lingbi_ui.words import say as say_state


class Overview:
    """GET /admin and the monthly report."""

    def __init__(self, desk: Desk):
        self.desk = desk

    async def page(self, asked: Asked) -> Response:
        """GET /admin?since=&until=&chart="""
        query = asked.request.query_params
        zone, zone_name = await self.desk.zone(asked)
        span = span_of(query, datetime.datetime.now(zone).date())
        chart = query.get("chart", "") if query.get("chart") in CHARTS else "tokens"
        reports = [
            self.desk.report(asked, name, str(span.since), str(span.last), most)
            for name, most in (("day", None), ("key", TOP), ("model", TOP), ("status", None))
        ]
        days, keys, models, statuses, now, known = await asyncio.gather(
            *reports, self.desk.get(asked, QUEUE), self.desk.get(asked, "/v1/models")
        )
        by_day = by(days["data"], "day")
        drawn = trend(by_day, span, chart)
        highest = max(map(sum, drawn), default=0)
        return self.desk.show(
            asked,
            "overview.html",
            "/admin",
            span=span,
            chart=chart,
            charts=tuple(CHARTS),
            whole=summed(days["data"]),
            by_day=by_day,
            nothing=summed(()),
            drawn=drawn,
            most=figures.hours(highest) if chart == "gpu" else figures.number(highest),
            top_keys=top(by(keys["data"], "key")),
            by_model=top(by(models["data"], "model")),
            by_status=top(by(statuses["data"], "status")),
            now=now,
            phase=_phase(now["phase"], language(asked.request)),
            models=[str(model["id"]) for model in known["data"]],
            months=months(datetime.datetime.now(zone).date()),
            zone=zone_name,
        )

    async def report(self, asked: Asked) -> Response:
        """GET /admin/usage.csv?month=2026-05: day by day, since the API's answers have a bound."""
        month = asked.request.query_params.get("month", "")
        if not MONTH.fullmatch(month):
            raise Unfit("month", month)
        zone, _ = await self.desk.zone(asked)
        rows = []
        for day in days_of(month, datetime.datetime.now(zone).date()):
            found = await self.desk.report(asked, ",".join(BY), day, day)
            if found["has_more"]:
                return self.desk.site.tell(asked.request, 422, "report_large", "/admin", month=month)
            rows += found["data"]
        named = {"Content-Disposition": f'attachment; filename="lingbi-{month}.csv"'}
        content = await asyncio.to_thread(file_of, rows)
        return Response(content, media_type="text/csv; charset=utf-8", headers=HEADERS | named)


def _phase(phase: str, spoken: str) -> str:
    """How a server is, in the words of the chat's first line."""
    return say_state(spoken, f"state_{phase}" if f"state_{phase}" in WORDS else "state_away")
