"""What a client is told about its limits: in headers, and in the sentence of a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, tzinfo
from typing import Any

from lingbi.accounts.facts import MEASURES, Limit
from lingbi.accounts.quotas.decision import TRY_AGAIN_S, Denial, Standing, Verdict
from lingbi.api_errors import OverQuota

LONGEST_RETRY_S = 60  # clients of OpenAI wait no longer of themselves


def refusal_of(verdict: Verdict, denial: Denial, now: float, zone: tzinfo) -> OverQuota:
    """The refusal of a request that may not begin."""
    limit, wait_s = denial.standing.limit, denial.wait_s(now)
    headers = headers_of(verdict.standings, now)
    if wait_s is not None:
        headers["Retry-After"] = str(wait_s)
    if wait_s is None or wait_s > LONGEST_RETRY_S:
        headers["x-should-retry"] = "false"  # OpenAI's clients would try twice more at once
    is_rate = limit.most > 0 and (denial.why == "held" or limit.period == "minute")
    code, kind = ("rate_limit_exceeded", limit.measure) if is_rate else ("insufficient_quota", "insufficient_quota")
    reason = f"{limit.measure}_a_{limit.period}"
    return OverQuota(sentence_of(denial, zone), code, kind, quota_of(denial), reason, headers)


def sentence_of(denial: Denial, zone: tzinfo) -> str:
    """Which limit is in the way, how much was used, and when it resets."""
    standing, limit = denial.standing, denial.standing.limit
    whose, most = _whose(limit), f"{limit.most:,} {limit.measure} a {limit.period}"
    if denial.why == "too large":
        if limit.most == 0:
            return f"{whose} may use no {limit.measure} (0 a {limit.period}); ask whoever runs this server"
        return f"this request has {denial.asked:,} {limit.measure}, and {whose} may use at most {most}; send fewer"
    if denial.why == "held":
        return (
            f"{whose} has used {standing.used:,} of {most}, and requests that run now may use what is left; "
            f"try again in {TRY_AGAIN_S} s"
        )
    asked = f", and this request has {denial.asked:,}" if standing.used < limit.most else ""
    return f"{whose} has used {standing.used:,} of {most}{asked}; the limit resets at {_told(standing.resets_at, zone)}"


def quota_of(denial: Denial) -> dict[str, Any]:
    """The limit in the way, for programs."""
    return limit_of(denial.standing) | {"held": denial.standing.held, "asked": denial.asked, "why": denial.why}


def limit_of(standing: Standing) -> dict[str, Any]:
    """How a limit stands, for programs; resets_at: seconds since the epoch."""
    limit = standing.limit
    return {
        "subject": limit.subject_kind,
        "name": limit.subject,
        "measure": limit.measure,
        "period": limit.period,
        "most": limit.most,
        "used": standing.used,
        "remaining": standing.remaining,
        "resets_at": standing.resets_at,
    }


def headers_of(standings: Iterable[Standing], now: float, asked: Verdict | None = None) -> dict[str, str]:
    """OpenAI's x-ratelimit-…, of each measure by the limit that has least left; asked: a request that takes its part."""
    standings, headers = list(standings), {}
    for measure in MEASURES:
        left = [(_left(found, asked), found) for found in standings if found.limit.measure == measure]
        if not left:
            continue
        remaining, tightest = min(left, key=lambda pair: (pair[0], -pair[1].resets_at))
        headers[f"x-ratelimit-limit-{measure}"] = str(tightest.limit.most)
        headers[f"x-ratelimit-remaining-{measure}"] = str(remaining)
        headers[f"x-ratelimit-reset-{measure}"] = duration(tightest.resets_at - now)
    return headers


def _left(standing: Standing, verdict: Verdict | None) -> int:
    return max(0, standing.remaining - (verdict.asked.of(standing.limit.measure) if verdict else 0))


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: 12s, 6m0s, 1h0m5s."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if whole >= 60 else "") + f"{rest}s"


def _whose(limit: Limit) -> str:
    if limit.subject_kind == "group":
        return f"the group {limit.subject} together"
    return "this key" if limit.subject_kind == "key" else f"this key (as each of the group {limit.subject})"


def _told(moment: int, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(moment, zone):%Y-%m-%d %H:%M} ({zone})"
