"""How long reports take over many rows: 1 000 keys and ten million rows of usage, in SQLite and in PostgreSQL.

`python -m tests.load.ledger_size` fills a database with three months by the hour and three years by day and month, and
prints the time of every kind of report that the API gives; `--url` names a PostgreSQL database, which must be empty, instead
of a file of SQLite's. Its exit status is 1 where a report takes a second.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts
from lingbi.accounts.tables import groups, keys, total_days, total_hours, usage_days, usage_hours, usage_months
from lingbi.accounts.usage.reports import answer, question
from lingbi.accounts.usage.spans import HOUR_S, span_of
from lingbi.http.admin.usage import MOST_ROWS

MOST_S = 1.0
UTC = ZoneInfo("UTC")
NOW = 1_795_953_600  # a time in 2026-11-29
SUBJECTS = (("4khd-7b", 200), ("7b", 200), ("", 429))  # models and statuses: rows of a key in an hour
TABLES = (usage_hours, usage_days, usage_months, total_hours, total_days)


@dataclass(frozen=True)
class Size:
    """How much there is: keys, days of hours, days."""

    keys: int = 1000
    hours_days: int = 90
    days: int = 1180


# What administrators look at: (by, since, until, only, top).
VIEWS = (
    ("key", None, None, {}, None),
    ("key", "2026-11", None, {}, None),
    ("key", "30d", None, {}, None),
    ("key", "2025-03-05", "2026-10-17", {}, None),
    ("key", "24h", None, {}, None),
    ("key", "2026-11", None, {}, 10),
    ("group", None, None, {}, None),
    ("owner", "2026", None, {}, None),
    ("owner,group,key,model", "2026-10", "2026-10", {}, None),
    ("key,model,day", "7d", None, {}, None),
    ("key,model,day", "30d", None, {}, None),
    ("group,day", "30d", None, {}, None),
    ("model", None, None, {}, None),
    ("status", None, None, {}, None),
    ("model,status,day", None, None, {}, None),
    ("day", None, None, {}, None),
    ("month", None, None, {}, None),
    ("month,group", None, None, {}, None),
    ("hour", None, None, {}, None),
    ("hour,model", "7d", None, {}, None),
    ("hour,key", "24h", None, {}, None),
    ("day,model", None, None, {"key": "key-7"}, None),
    ("hour", None, None, {"key": "key-7"}, None),
    ("day", "30d", None, {"group": "group-3"}, None),
    ("month,model", None, None, {"owner": "owner-5"}, None),
    ("", None, None, {}, None),
)


def fill(database: Database, size: Size) -> int:
    """Fill an empty database; returns its rows of usage."""
    database.bring_up_to_date()
    with database.begin() as connection:
        connection.execute(sa.insert(groups), [{"name": f"group-{number}"} for number in range(40)])
        rows = [
            {"name": f"key-{k}", "owner": f"owner-{k % 300}", "group_name": f"group-{k % 40}", "created_at": 0}
            for k in range(size.keys)
        ]
        connection.execute(sa.insert(keys), rows)
    for table in (usage_hours, usage_days):
        fill_table(database, table, size)
    for table, source, columns in (
        (usage_months, usage_days, "substr(day, 1, 7), key, model, status"),
        (total_hours, usage_hours, "hour, model, status"),
        (total_days, usage_days, "day, model, status"),
    ):
        sums = ", ".join(f"sum({name})" for name in Counts._fields)
        groups_of = ", ".join(str(number + 1) for number in range(len(table.primary_key.columns)))
        run(database, f"INSERT INTO {table.name} SELECT {columns}, {sums} FROM {source.name} GROUP BY {groups_of}")
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM ANALYZE")  # as autovacuum does by itself in time
    with database.read() as connection:
        return sum(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in TABLES)


def fill_table(database: Database, table: sa.Table, size: Size) -> None:
    """Every key's rows of every period; the index is made at the end, which is faster."""
    first = (NOW // HOUR_S) - size.hours_days * 24 + 1
    is_hours = table is usage_hours
    count = size.hours_days * 24 if is_hours else size.days
    day = f"date({NOW}, 'unixepoch', '-' || ({count} - 1 - p) || ' days')"
    if not database.is_sqlite:
        day = f"to_char(to_timestamp({NOW}) AT TIME ZONE 'UTC' - ({count} - 1 - p) * interval '1 day', 'YYYY-MM-DD')"
    period = f"{first} + p" if is_hours else day
    subjects = " UNION ALL ".join(f"SELECT '{model}' AS model, {status} AS status" for model, status in SUBJECTS)
    index = next(iter(table.indexes))
    run(database, f"DROP INDEX {index.name}")
    run(
        database,
        f"""INSERT INTO {table.name} WITH RECURSIVE
            periods(p) AS (SELECT 0 UNION ALL SELECT p + 1 FROM periods WHERE p + 1 < {count}),
            ks(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM ks WHERE k + 1 < {size.keys}),
            subjects AS ({subjects})
            SELECT {period}, 'key-' || k, model, status, 1 + (k + p) % 50, 700 + (k * 7 + p * 13) % 9000, (k + p) % 600,
            80 + (k * 3 + p) % 900, (k + p) % 4, 300 + (k * p) % 4000 FROM periods CROSS JOIN ks CROSS JOIN subjects
            ORDER BY p, 'key-' || k, model, status""",
    )
    run(database, str(sa.schema.CreateIndex(index)))


def run(database: Database, statement: str) -> None:
    with database.begin() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.execute(sa.text(statement))


def measure(database: Database, rounds: int) -> list[dict]:
    """The seconds of each view, as the API answers it: the median and the longest, and of this process's processor.

    SQLite computes within this process: its processor's seconds are the view's on a machine that has nothing else to do.
    """
    found = []
    for by, since, until, only, top in VIEWS:
        since = "2026-01" if since == "2026" else since
        asked = replace(question(by, span_of(since, until, NOW, UTC), only, top), most_rows=MOST_ROWS)
        times, processor = [], []
        for _ in range(rounds):
            start, used = time.monotonic(), time.process_time()
            report = answer(database, asked, UTC)
            times.append(time.monotonic() - start)
            processor.append(time.process_time() - used)
        assert report.rows, asked
        what = {"by": by, "since": since, "until": until, "only": only, "top": top, "rows": len(report.rows)}
        what |= {
            "median_s": statistics.median(times),
            "longest_s": max(times),
            "processor_s": statistics.median(processor),
        }
        found.append({name: round(value, 3) if name.endswith("_s") else value for name, value in what.items()})
    return found


def main(arguments=None) -> int:
    """Exit status: 0, or 1 where a view takes MOST_S or longer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of an empty PostgreSQL database")
    parser.add_argument("--rounds", type=int, default=5)
    for name, value in vars(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args(arguments)
    size = Size(options.keys, options.hours_days, options.days)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(parse_url(options.url or f"sqlite:///{Path(folder)}/accounts.db"))
        start = time.monotonic()
        rows = fill(database, size)
        print(json.dumps({"rows": rows, "filled_s": round(time.monotonic() - start, 1)}), flush=True)
        found = measure(database, options.rounds)
        for view in found:
            print(json.dumps(view), flush=True)
        longest = max(view["longest_s"] for view in found)
        print(json.dumps({"within_bounds": longest < MOST_S, "longest_s": longest}))
        database.engine.dispose()
    return int(longest >= MOST_S)


if __name__ == "__main__":
    sys.exit(main())
