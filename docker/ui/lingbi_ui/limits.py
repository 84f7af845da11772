"""What a visitor is told of the limit that is in the way: how much is used, and when it resets."""

from collections.abc import Mapping
from typing import Any

from lingbi_ui.words import CHINESE, say

MEASURES, PERIODS = ("requests", "tokens", "images"), ("minute", "day", "month")


def limit_told(quota: Mapping[str, Any], language: str, now: float) -> str:
    """A sentence, with a space before it where the language has one; empty for what is no limit as the server tells it.

    now: seconds since the epoch.
    """
    measure, period = quota.get("measure"), quota.get("period")
    if measure not in MEASURES or period not in PERIODS:
        return ""
    sentence = say(
        language,
        "quota_group" if quota.get("subject") == "group" else "quota_own",
        used=f"{int(quota['used']):,}",
        most=f"{int(quota['most']):,}",
        measure=say(language, f"quota_{measure}"),
        period=say(language, f"quota_{period}"),
        left=left_told(float(quota["resets_at"]) - now, language),
    )
    return sentence if language == CHINESE else f" {sentence}"


def left_told(seconds: float, language: str) -> str:
    """A time that is left, in the largest unit of which there are two."""
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return say(language, f"left_{name}", count=round(seconds / length))
    return say(language, "left_seconds", count=max(1, round(seconds)))
