"""What counts against limits: added as journals are counted, in the same transaction, so that nothing counts twice."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import tzinfo
from typing import TYPE_CHECKING

import sqlalchemy as sa

from lingbi.accounts.database import now_of
from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.facts import KeyFacts
from lingbi.accounts.periods import span_of
from lingbi.accounts.tables import holds, quota_use

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from lingbi.accounts.database import Database

CLIENT_LEFT = 499
AT_ONCE = 500  # requests in one statement
SKEW_S = 2.0  # by less, clocks of hosts may differ
KEPT_S = {"minute": 3600, "day": 3 * 86400, "month": 64 * 86400}  # from the start of a period
Find = Callable[[str], KeyFacts | None]
Row = tuple[str, str, int]  # subject, period, start of the period
Use = tuple[int, int, int]  # requests, tokens, images: in the order of MEASURES

LOCK = (
    sa.select(holds.c.request)
    .where(holds.c.request.in_(sa.bindparam("of", expanding=True)))
    .order_by(holds.c.request, holds.c.subject)
    .with_for_update()
)
LOWER = (
    sa.update(holds)
    .where(holds.c.request == sa.bindparam("request_"))
    .values(tokens=sa.case((holds.c.tokens > sa.bindparam("by"), holds.c.tokens - sa.bindparam("by")), else_=0))
)
RELEASE = sa.delete(holds).where(holds.c.request.in_(sa.bindparam("of", expanding=True)))


def add_use(
    connection: Connection,
    database: Database,
    entries: Iterable[Entry],
    find: Find,
    zone: tzinfo,
) -> None:
    """Add entries of journals, as they were read, to what counts against limits, and take them from what is held.

    find: tells what is known of a key, by its name. Days and months are added up for every key and its group, so that a limit made today knows
    this month; minutes only where they are limited.
    """
    entries = list(entries)
    rows = use_of(entries, find, zone, _skew(connection))
    if rows:
        connection.execute(_upsert(database), [_values(row, use) for row, use in sorted(rows.items())])
    limited = [entry for entry in entries if entry.id and ((key := find(entry.key)) is None or key.limits)]
    if limited:
        _take_from_holds(connection, limited)


def _take_from_holds(connection: Connection, entries: list[Entry]) -> None:
    ended = {entry.id for entry in entries if entry.status is not None}
    running: Counter[str] = Counter()
    for entry in entries:
        if entry.id not in ended:
            running[entry.id] += tokens_of(entry.counts)
    together = sorted(ended | set(running))
    for some in (together[first : first + AT_ONCE] for first in range(0, len(together), AT_ONCE)):
        # In this order everybody locks them, so that nobody waits for who waits for him.
        connection.execute(LOCK, {"of": some})
        if told := [{"request_": request, "by": running[request]} for request in some if running[request]]:
            connection.execute(LOWER, told)
        if gone := [request for request in some if request in ended]:
            connection.execute(RELEASE, {"of": gone})


def use_of(entries: Iterable[Entry], find: Find, zone: tzinfo, skew_s: float = 0.0) -> dict[Row, Use]:
    """What entries add, by subject and period. skew_s: by how much the database's clock is ahead of this host's."""
    found: defaultdict[Row, Use] = defaultdict(lambda: (0, 0, 0))
    spans: dict[tuple[str, int], int] = {}
    for entry in entries:
        use = counted(entry)
        if use == (0, 0, 0):
            continue
        at = entry.at + skew_s if entry.charged_at is None else entry.charged_at
        for subject, periods in subjects_of(entry.key, find(entry.key)).items():
            for period in periods:
                minute = (period, int(at // 60))
                if minute not in spans:
                    spans[minute] = span_of(period, at, zone).start
                row = (subject, period, spans[minute])
                requests, tokens, images = found[row]
                found[row] = requests + use[0], tokens + use[1], images + use[2]
    return dict(found)


def counted(entry: Entry) -> Use:
    """What an entry counts against limits: a request that was refused is none."""
    is_refused = entry.status is not None and 400 <= entry.status < 500 and entry.status != CLIENT_LEFT
    counts = entry.counts
    return (0 if is_refused else counts.requests), tokens_of(counts), (0 if is_refused else counts.images)


def tokens_of(counts: Counts) -> int:
    """The tokens that count: of prompt and answer, whether or not the prompt's were computed anew."""
    return counts.prompt_tokens + counts.completion_tokens


def subjects_of(name: str, key: KeyFacts | None) -> dict[str, list[str]]:
    """Whom a key's use counts for, each with the periods that are added up."""
    found = {f"key:{name}": ["day", "month"]}
    if key and key.group:
        found[f"group:{key.group}"] = ["day", "month"]
    for limit in key.limits if key else ():
        subject = f"group:{limit.subject}" if limit.subject_kind == "group" else f"key:{name}"
        if limit.period == "minute" and "minute" not in found.setdefault(subject, ["day", "month"]):
            found[subject].append("minute")
    return found


def forget_use(connection: Connection, now: float) -> None:
    """Delete what periods that are over had counted."""
    for period, kept_s in KEPT_S.items():
        old = (quota_use.c.period == period) & (quota_use.c.period_start < now - kept_s)
        connection.execute(sa.delete(quota_use).where(old))


def _skew(connection: Connection) -> float:
    skew = now_of(connection) - time.time()
    return skew if abs(skew) > SKEW_S else 0.0


def _upsert(database: Database) -> sa.Executable:
    insert = database.insert(quota_use)
    columns = ("requests", "tokens", "images")
    more = {name: quota_use.c[name] + insert.excluded[name] for name in columns}
    statement: sa.Executable = insert.on_conflict_do_update(
        index_elements=["subject", "period", "period_start"], set_=more
    )
    return statement


def _values(row: Row, use: Use) -> dict[str, str | int]:
    names = ("subject", "period", "period_start", "requests", "tokens", "images")
    return dict(zip(names, (*row, *use), strict=True))
