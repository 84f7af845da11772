"""What the ledger itself takes of the processor: `python -m tests.load.ledger_own`, a minute on any machine.

Requests/s of two servers vary by more than what the ledger costs, so this counts its work alone: a worker's own ledger and
quotas, with their threads and database, get requests that run for some seconds, at several rates. What the same loop takes
without a ledger is left out. Prints milliseconds of processor time for each request, and their part of --request-ms, which
is what a worker takes for one in all (`none_processor_ms` of tests.load.ledger_overhead). Exit status 1 for more than
1 % of it.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lingbi.accounts.key_file import ensure_keys
from lingbi.accounts.opening import database_at_start
from lingbi.accounts.ring import KeyRing, Source
from lingbi.heartbeat import Vitals
from lingbi.http.metrics import Metrics
from lingbi.http.readiness import Readiness
from lingbi.http.request_log import Record
from lingbi.http.service import Service
from lingbi.settings import Settings
from lingbi.worker.accounts import bring_ledger

MAX_PART = 0.01
LASTS_S = 4.0  # a request, so that it is told while it runs
KEYS = 40


def record(number: int) -> Record:
    """A request of one of some keys, with an answer that has begun."""
    made = Record(f"req-{number}", "POST", "/v1/chat/completions", "127.0.0.1", stream=True, model="model")
    made.key, made.pictures, made.encode_s = f"key-{number % KEYS}", 1, 0.05
    made.prompt_tokens, made.completion_tokens = 1372, 1
    made.engine.start()
    return made


def processor_s(rate: float, seconds: float, begin: Callable[[Record], None], end: Callable[[Record], None]) -> float:
    """The processor's seconds of this process while so many requests a second begin, and end LASTS_S later."""
    before, start, number = time.process_time(), time.monotonic(), 0
    running: deque = deque()
    while (now := time.monotonic() - start) < seconds:
        if number < now * rate:
            number += 1
            running.append((now, record(number)))
            begin(running[-1][1])
        elif running and now - running[0][0] > LASTS_S:
            end(running.popleft()[1])
        else:
            time.sleep(0.002)
    for _, one in running:
        end(one)
    return time.process_time() - before


@contextlib.contextmanager
def counting(folder: Path, url: str | None):
    """A service whose requests are counted, as a worker has it."""
    settings = Settings(state_dir=folder, database_url=url)
    ensure_keys(settings.hashed_key_file(), settings.key_file())
    database = database_at_start(settings)
    keys = KeyRing(settings.hashed_key_file(), Source.of(settings, database))
    service = Service(settings, Readiness("model", "cpu", ""), keys, Metrics("model"), Vitals())
    ledger = bring_ledger(service, database)
    ledger.start()
    try:
        yield service
    finally:
        ledger.stop()
        database.engine.dispose()


def measure(rate: float, seconds: float, url: str | None) -> float:
    """Milliseconds of the processor that the ledger takes for each request at this rate."""
    without_s = processor_s(rate, seconds, lambda one: None, lambda one: None)

    def begin(one: Record) -> None:
        one.use = service.spool.open(one)
        one.use.run()

    with tempfile.TemporaryDirectory() as folder, counting(Path(folder), url) as service:
        with_s = processor_s(rate, seconds, begin, lambda one: one.end_use(200))
        assert service.spool.journals(), "nothing was written down"
    return (with_s - without_s) * 1000 / (rate * seconds)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 within the bound, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 40], help="requests/s (default 10 40)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a measurement")
    parser.add_argument("--request-ms", type=float, default=88.0, help="processor time of a request in all, ms")
    parser.add_argument("--database-url", default=os.environ.get("LINGBI_DATABASE_URL"))
    options = parser.parse_args(arguments)
    failed = False
    for rate in options.rates:
        took_ms = measure(rate, options.seconds, options.database_url)
        part = took_ms / options.request_ms
        failed |= part > MAX_PART
        print(json.dumps({"requests_per_s": rate, "ledger_ms": round(took_ms, 3), "part": round(part, 4)}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
