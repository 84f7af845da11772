"""What was used, by whom, of what and when: one question to the usage tables, which is answered from the fewest rows.

Years are read from rows of months and of the days at both ends, and what is asked without keys from rows of all keys
together; so every report takes well under a second over ten million rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database
from lingbi.accounts.entries import Counts
from lingbi.accounts.tables import keys, total_days, total_hours, usage_days, usage_hours, usage_months
from lingbi.accounts.usage.spans import HOUR_S, Span, pieces_of
from lingbi.errors import ConfigurationError

TIMES = ("hour", "day", "month")
OF_KEYS = ("key", "group", "owner")
DIMENSIONS = (*TIMES, *OF_KEYS, "model", "status")
FILTERS = (*OF_KEYS, "model", "status")
# Of a key that is not there any more, and of one without, both are empty.
JOINED = {"group": sa.func.coalesce(keys.c.group_name, ""), "owner": sa.func.coalesce(keys.c.owner, "")}
Row = dict[str, Any]
Select = sa.Select[Any]


@dataclass(frozen=True)
class Question:
    """What a report is of.

    by: some of DIMENSIONS; only: {dimension: value}, of FILTERS; top: only so many, those with most tokens; most_rows: no
    more than so many.
    """

    by: tuple[str, ...]
    span: Span = field(default_factory=Span)
    only: Mapping[str, str] = field(default_factory=dict)
    top: int | None = None
    most_rows: int | None = None

    @property
    def time(self) -> str | None:
        """The time by which it is, if it is by any."""
        return next((name for name in self.by if name in TIMES), None)

    def has(self, *dimensions: str) -> bool:
        """Whether it is by any of these, or only of one of them."""
        return any(name in self.by or name in self.only for name in dimensions)


@dataclass(frozen=True)
class Report:
    """Rows with the dimensions and Counts; is_cut: there are more."""

    rows: list[Row]
    is_cut: bool = False


def question(by: str, span: Span, only: Mapping[str, str | None], top: int | None = None) -> Question:
    """A question as people ask it. by: dimensions with commas. Raises ConfigurationError, which names what is wrong."""
    names = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    for name in names:
        if name not in DIMENSIONS:
            raise ConfigurationError(f"by {name!r}: usage is known by {', '.join(DIMENSIONS)}")
    times = [name for name in names if name in TIMES]
    if len(times) > 1:
        raise ConfigurationError(f"by {' and '.join(times)}: take one of them")
    if span.is_of_hours and times not in ([], ["hour"]):
        raise ConfigurationError(f"by {times[0]}: since and until may have no hour then; give days, or ask by hour")
    for name, value in only.items():
        _check_filter(name, value)
    if top is not None and top < 1:
        raise ConfigurationError(f"top {top}: give a number above 0")
    return Question(names, span, {name: value for name, value in only.items() if value is not None}, top)


def _check_filter(name: str, value: str | None) -> None:
    """Raises ConfigurationError for a value that no row can have, and that a database may not even take."""
    if value is None:
        return
    if name == "status" and not re.fullmatch("[0-9]{3}", value):
        raise ConfigurationError(f"status {value[:80]!r} is no status of an answer; give one as in 200")
    if name != "status" and any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ConfigurationError(f"{name} {value[:80]!r} has a control character, which no name has")


def answer(database: Database, asked: Question, zone: ZoneInfo) -> Report:
    """The report. Raises DatabaseAway."""
    with database.read() as connection:
        return _answer(connection, asked, zone)


def _answer(connection: Connection, asked: Question, zone: ZoneInfo) -> Report:
    statement = statement_of(asked)
    if asked.most_rows is not None and not asked.top:
        statement = statement.limit(asked.most_rows + 1)
    rows = [_row(dict(found), asked, zone) for found in connection.execute(statement).mappings()]
    kept = rows[: asked.most_rows]
    return Report(kept, len(kept) < len(rows))


def _row(found: Mapping[str, Any], asked: Question, zone: ZoneInfo) -> Row:
    row: Row = {name: found[name] for name in asked.by}
    if "hour" in row:
        row["hour"] = datetime.fromtimestamp(row["hour"] * HOUR_S, zone).isoformat(timespec="minutes")
    return row | {name: int(found[name] or 0) for name in Counts._fields}


def statement_of(asked: Question) -> Select:
    """The one statement that answers a question."""
    inner_names = [name for name in asked.by if name not in JOINED]
    if asked.has(*JOINED) and "key" not in inner_names:
        inner_names.append("key")
    inner = _summed(_parts(asked, inner_names), inner_names)
    if not asked.has(*JOINED):
        return _ordered(inner, asked, {name: inner.selected_columns[name] for name in asked.by}, inner.selected_columns)
    found = inner.subquery()
    columns = {name: JOINED[name] if name in JOINED else found.c[name] for name in asked.by}
    sums = [sa.func.sum(found.c[name]).label(name) for name in Counts._fields]
    statement = sa.select(*(column.label(name) for name, column in columns.items()), *sums)
    statement = statement.select_from(found.outerjoin(keys, keys.c.name == found.c.key)).group_by(*columns.values())
    wanted = [JOINED[name] == value for name, value in asked.only.items() if name in JOINED]
    return _ordered(statement.where(*wanted), asked, columns, statement.selected_columns)


def _ordered(statement: Select, asked: Question, columns: Mapping[str, Any], sums: Any) -> Select:
    order = [columns[name] for name in sorted(asked.by, key=DIMENSIONS.index)]
    if asked.top:
        return statement.order_by(sa.desc(sums["prompt_tokens"] + sums["completion_tokens"]), *order).limit(asked.top)
    return statement.order_by(*order)


def _summed(parts: list[Select], names: list[str]) -> Select:
    """The sums by some dimensions of rows that are in one part or in several."""
    rows = (parts[0] if len(parts) == 1 else sa.union_all(*parts)).subquery()
    columns = [rows.c[name] for name in names]
    sums = [sa.func.sum(rows.c[name]).label(name) for name in Counts._fields]
    return sa.select(*columns, *sums).group_by(*columns)


def _parts(asked: Question, names: list[str]) -> list[Select]:
    """The rows of the span, from the tables that hold it in the fewest."""
    has_keys = asked.has(*OF_KEYS)
    if asked.time == "hour" or asked.span.is_of_hours:
        return [_part(usage_hours if has_keys else total_hours, "hour", asked.span.hours, asked, names)]
    if asked.time == "day" or not has_keys:
        return [_part(usage_days if has_keys else total_days, "day", asked.span.days, asked, names)]
    pieces = pieces_of(asked.span)
    parts = [_part(usage_days, "day", edge, asked, names) for edge in pieces.days]
    return [*parts, *([_part(usage_months, "month", pieces.months, asked, names)] if pieces.months else [])]


def _part(table: sa.Table, period: str, between: tuple[Any, Any], asked: Question, names: list[str]) -> Select:
    column, (first, last) = table.c[period], between
    wanted = [*([column >= first] if first is not None else []), *([column <= last] if last is not None else [])]
    for name, value in asked.only.items():
        if name not in JOINED:
            wanted.append(table.c[name] == (int(value) if name == "status" else value))
    of: dict[str, Any] = {name: table.c[name] for name in names if name in table.c}
    if "month" in names and period == "day":
        of["month"] = sa.func.substr(column, 1, 7)
    if "key" in of and "key" not in asked.only:
        # As an expression: grouped by the column itself, SQLite walks the whole index of keys for the sake of their order.
        of["key"] = of["key"].concat("")
    columns = [of[name].label(name) for name in names]
    return sa.select(*columns, *(table.c[name] for name in Counts._fields)).where(*wanted)
