"""What a quota costs a request: the time of its transaction, on SQLite and, with a URL, on PostgreSQL.

    PYTHONPATH=. .venv-test/bin/python -m tests.load.quotas [--url postgresql://USER:PASSWORD@HOST/NAME] [--requests 2000]

A key has limits of its own and of its group, of all measures and periods. Between two requests, what a worker's ledger
counts of them is counted, as it does twice a second. The tables must be empty.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.facts import MEASURES, PERIODS, KeyFacts, Limit
from lingbi.accounts.quotas.decision import Asked
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use

ZONE = ZoneInfo("Asia/Shanghai")
BATCH = 50  # requests that are counted together
SUBJECTS = (("key", "alice"), ("group", "vision"))
LIMITS = tuple(
    Limit(*subject, measure, period, 10**12) for subject in SUBJECTS for measure in MEASURES for period in PERIODS
)
KEY = KeyFacts("alice", group="vision", limits=LIMITS)


def main() -> None:
    """Print the times, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(
            sa.make_url(options.url) if options.url else parse_url(f"sqlite:///{Path(folder)}/accounts.db")
        )
        database.bring_up_to_date()
        taking, counting = measured(database, options.requests)
    print(f"{'admitting one request':28} {told(taking)}")
    print(f"{f'counting {BATCH} requests':28} {told(counting)}")


def measured(database: Database, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each admission, and of each count of a batch."""
    worker, taking, counting, ended = Holds(database, "measured", ZONE), [], [], []
    for number in range(requests):
        begun = time.perf_counter()
        assert worker.take(f"r{number}", KEY, Asked(1000, 1))[0].denial is None
        taking.append(1000 * (time.perf_counter() - begun))
        ended.append(Entry(f"r{number}", time.time(), "alice", "demo", 200, Counts(1, 100, 0, 100, 1, 10)))
        if len(ended) == BATCH:
            begun = time.perf_counter()
            with database.begin() as connection:
                add_use(connection, database, ended, {"alice": KEY}.get, ZONE)
            counting.append(1000 * (time.perf_counter() - begun))
            ended.clear()
    return taking, counting


def told(times: list[float]) -> str:
    """The median and the 99th percentile."""
    return f"median {statistics.median(times):6.2f} ms   99 %: {statistics.quantiles(times, n=100)[-1]:6.2f} ms"


if __name__ == "__main__":
    main()
