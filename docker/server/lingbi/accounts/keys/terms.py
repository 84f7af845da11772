"""What people and programs write about a key or a group, checked: counts, periods, dates, models, texts. Pure.

Each function takes a value as the command line or JSON has it, and raises BadTerm with the value seen and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from lingbi.accounts.facts import MEASURES, PERIODS
from lingbi.errors import ConfigurationError

Limits = dict[tuple[str, str], int | None]  # the most by (measure, period); None takes the limit away
NO_LIMIT = "no-limit"  # `none` could be taken for nothing at all
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGbB]?)")
FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
MOST = 10**15  # a whole number that JSON's readers keep to the last digit, and a sum of which the database keeps
MOST_AT_ONCE, MOST_WEIGHT = 100_000, 1000
SEEN = 60  # characters of a value that a refusal shows
TOO_LATE = 253_402_300_799  # the end of the year 9999
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|d|w)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST_OVERLAP_S = 365 * 86_400


class BadTerm(ConfigurationError):
    """A value that cannot be used; param: what it was given for, as the command line calls it."""

    def __init__(self, param: str, sentence: str) -> None:
        super().__init__(f"{param}: {sentence}")
        self.param, self.sentence = param, sentence


def _says(value: Any, word: str) -> bool:
    return isinstance(value, str) and value.strip().lower() == word


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SEEN else f"{text[:SEEN]}…"


def name_of(value: Any, what: str = "name") -> str:
    """A name for a key or a group."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise BadTerm(what, f"{_shown(value)} is no name; it has 1 to 64 letters, digits, dots, dashes or underscores")
    return value


def text_of(param: str, value: Any, most: int) -> str:
    """One line of text, which may be empty."""
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise BadTerm(param, f"{_shown(value)} cannot be kept; give one line of at most {most} characters")
    return value


def flag_of(param: str, value: Any) -> bool:
    """Yes or no."""
    known = {"yes": True, "no": False, True: True, False: False}
    if not isinstance(value, str | bool) or value not in known:
        raise BadTerm(param, f"{_shown(value)} is neither yes nor no")
    return known[value]


def count_of(param: str, value: Any, most: int = MOST, least: int = 0) -> int | None:
    """A whole number, also written as in 100k or 2.5M; None for one that is taken away. 0 allows nothing."""
    if value is None or _says(value, NO_LIMIT):
        return None
    number = _number(value)
    if number is None or isinstance(value, bool):
        raise BadTerm(
            param,
            f"{_shown(value)} is no whole number; give one as in 500, 100k or 2M, or `{NO_LIMIT}` to take the limit away",
        )
    if not least <= number <= most:
        nothing = "0 allows nothing, and " if least == 0 and number < 0 else ""
        raise BadTerm(
            param,
            f"{_shown(value)} is not between {least} and {most}; {nothing}`{NO_LIMIT}` takes the limit away",
        )
    return number


def _number(value: Any) -> int | None:
    """The whole number that a text or a number says; None where it says none."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    match = COUNT.fullmatch(value.strip().removeprefix("-")) if isinstance(value, str) and len(value) < 100 else None
    if not match:
        return None
    whole, _, part = match[1].partition(".")
    factor = FACTORS[match[2].lower()]
    scaled = int(f"{whole}{part}") * factor
    number, rest = divmod(scaled, 10 ** len(part))
    sign = -1 if isinstance(value, str) and value.strip().startswith("-") else 1
    return None if rest else sign * number


def limits_of(measure: str, values: Iterable[str]) -> Limits:
    """Limits as the command line has them: 100k/day, several with commas, no-limit/day, or `no-limit` for every period."""
    found: Limits = {}
    for text in (part.strip() for value in values for part in value.split(",")):
        most, slash, period = text.partition("/")
        if not slash and _says(most, NO_LIMIT):
            found |= {(measure, each): None for each in PERIODS}
            continue
        if not slash:
            count_of(measure, most)  # what is no number is told first
            raise BadTerm(measure, f"{_shown(text)} has no period; write it as in {text}/day ({', '.join(PERIODS)})")
        found[measure, _period(measure, period)] = count_of(measure, most)
    return found


def json_limits(values: Any) -> Limits:
    """Limits as JSON has them: {"tokens": {"day": 100000, "month": null}}; null takes one away."""
    found: Limits = {}
    for measure, periods in _mapping("limits", values).items():
        if measure not in MEASURES:
            raise BadTerm("limits", f"{_shown(measure)} is not counted; {', '.join(MEASURES)} are")
        for period, most in _mapping(f"limits.{measure}", periods).items():
            param = f"limits.{measure}"
            found[measure, _period(param, period)] = count_of(f"{param}.{period}", most)
    return found


def _mapping(param: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadTerm(param, f"{_shown(value)} is no object")
    return value


def _period(param: str, text: str) -> str:
    period = text.strip().lower()
    if period not in PERIODS:
        raise BadTerm(param, f"{_shown(text)} is no period; limits are for a minute, a day or a month")
    return period


def models_of(value: Any, known: Callable[[str], str | None]) -> tuple[str | None, list[str]]:
    """(models as they are kept, those that nobody knows) of a list, or of a text with commas.

    None, `all` and a list of just that: all models.
    known: the name under which a model is served, None of one that is not published: it may be a folder of the lab's own.
    """
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value is None or _says(only, "all"):
        return None, []
    if value == "" or _says(only, "none"):
        raise BadTerm("models", "give names with commas, or `all`; a key that may use none can be revoked")
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadTerm("models", f"{_shown(value)} is no list of models; write names with commas, or `all`")
    cleaned = [name.strip() for name in names if name.strip()]
    kept = ",".join(sorted({known(name) or name for name in cleaned}))
    if len(kept) > 2000 or not kept.isprintable():
        raise BadTerm("models", f"{_shown(value)} cannot be kept; give at most 2000 characters")
    return kept, [name for name in cleaned if known(name) is None]


def end_of(value: Any, zone: ZoneInfo, now: float) -> float | None:
    """Seconds since the epoch of a date (through its last moment), a time, or seconds; None or `never`: no end."""
    if value is None or _says(value, "never"):
        return None
    ends_at = _moment(value, zone)
    if ends_at is None or not ends_at < TOO_LATE:
        raise BadTerm("until", f"{_shown(value)} is no date; write it as in 2026-12-31 or 2026-12-31T18:00, or `never`")
    if ends_at <= now:
        raise BadTerm("until", f"{_shown(value)} is past; `revoke` ends a key now")
    return ends_at


def _moment(value: Any, zone: ZoneInfo) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        if len(value) == len("2026-12-31"):
            return datetime.combine(date.fromisoformat(value) + timedelta(days=1), time(), zone).timestamp()
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def overlap_of(value: Any) -> float:
    """Seconds of an overlap: a number of seconds, or as in 30m, 24h, 7d; 0: none."""
    match = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = float(match[1]) * SECONDS[match[2]] if match else value
    if isinstance(seconds, str) and seconds.strip() == "0":
        seconds = 0
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_OVERLAP_S:
        raise BadTerm(
            "overlap", f"{_shown(value)} is no time; write it as in 30m, 24h or 7d, at most 365d, or 0 for none"
        )
    return float(seconds)
