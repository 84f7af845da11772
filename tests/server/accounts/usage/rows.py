"""Usage that tests count: entries over months in a zone, and what a question to them should be answered with."""

import random
from collections import defaultdict
from datetime import datetime

import sqlalchemy as sa

from lingbi.accounts.database import Database
from lingbi.accounts.entries import NOTHING, Counts, Entry
from lingbi.accounts.ledger import counting
from lingbi.accounts.tables import groups, keys
from lingbi.accounts.usage.spans import HOUR_S

# {key: (owner, group)}; the last is not in the table any more.
ACCOUNTS = {
    "a": ("李", "lab"),
    "b": ("李", None),
    "=c": ("", "lab"),
    "ui/wang": ("wang", "visitors"),
    "gone": ("", None),
}
MODELS, STATUSES = ("4khd", "demo"), (200, 429, 502)


def entries(zone, count: int = 400) -> list[Entry]:
    """Entries at random over four months, the same each time."""
    rng = random.Random(26)
    start, end = (datetime(2026, month, 7, tzinfo=zone).timestamp() for month in (1, 5))
    return [
        Entry(
            str(number),
            rng.uniform(start, end),
            rng.choice(list(ACCOUNTS)),
            rng.choice(MODELS),
            rng.choice(STATUSES),
            Counts(*(rng.randrange(100) for _ in Counts._fields)),
        )
        for number in range(count)
    ]


def fill(url, zone, found: list[Entry]) -> Database:
    """A database with the accounts and these entries, which were counted in several parts."""
    database = Database(url)
    database.bring_up_to_date()
    with database.begin() as connection:
        connection.execute(sa.insert(groups), [{"name": "lab"}, {"name": "visitors"}])
        for name, (owner, group) in list(ACCOUNTS.items())[:-1]:
            row = {"name": name, "owner": owner, "note": "n", "group_name": group, "created_at": 0}
            connection.execute(sa.insert(keys), row)
    for part in range(3):
        with database.begin() as connection:
            counting.add(connection, found[part::3], zone)
    return database


def expected(found: list[Entry], by: tuple, keep, zone) -> dict:
    """{values of the dimensions: Counts}, added up one by one."""
    sums = defaultdict(lambda: NOTHING)
    for entry in filter(keep, found):
        sums[tuple(value(entry, name, zone) for name in by)] = sums[
            tuple(value(entry, name, zone) for name in by)
        ].plus(entry.counts)
    return dict(sums)


def value(entry: Entry, name: str, zone):
    """An entry's value of a dimension, as reports show it."""
    local = datetime.fromtimestamp(entry.at, zone)
    if name == "hour":
        start = entry.at // HOUR_S * HOUR_S
        return datetime.fromtimestamp(start, zone).isoformat(timespec="minutes")
    if name in ("day", "month"):
        return local.date().isoformat()[: 10 if name == "day" else 7]
    if name in ("owner", "group"):
        return ACCOUNTS[entry.key][("owner", "group").index(name)] or ""
    return getattr(entry, name)
