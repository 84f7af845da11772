"""What the ledger costs: a worker that counts what requests use, and the same without, asked the same in turns.

`python -m tests.load.ledger_overhead` starts both with the demo model (or --model FOLDER), and asks them in alternating
rounds. Prints requests/s, the time to first token and the processor's time of each side, and the medians of the rounds' ratios
with their intervals at 95 % confidence: what else the machine does weighs on both. It takes about ten minutes on two cores.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from tests.conftest import DEMO, running_worker
from tests.load.overhead import questions
from tests.load.sides import compare, judge

SIDES = ("ledger", "none")
MAX_COST, MAX_FIRST_TOKEN_MS = 0.01, 1.0
CACHE_FRACTION = "0.3"  # of a GPU, which both share
WITHOUT = "--serve-without"


def serve_without() -> None:
    """A worker whose requests write nothing down."""
    from lingbi.worker import accounts, main

    nothing = SimpleNamespace(start=lambda: None, stop=lambda: None)
    accounts.bring_ledger = lambda service, database: nothing
    main.run_and_exit()


def main(arguments=None) -> int:
    """Exit status: 0 within the bounds, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEMO))
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--count", type=int, default=24, help="requests of a side in a round")
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument(WITHOUT, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve_without:
        serve_without()
    with tempfile.TemporaryDirectory() as folder:
        return measure_both(options, Path(folder))


def measure_both(options: argparse.Namespace, folder: Path) -> int:
    settings = {"LINGBI_MODEL": options.model, "LINGBI_ENGINE": options.engine, "LINGBI_CACHE_FRACTION": CACHE_FRACTION}
    commands = {"ledger": (), "none": (sys.executable, "-m", "tests.load.ledger_overhead", WITHOUT)}
    with contextlib.ExitStack() as running:
        workers = {}
        for side in SIDES:
            (folder / side).mkdir()
            (folder / side / "api-key").write_text("one-key-for-both-sides\n")
            workers[side] = running.enter_context(running_worker(folder / side, *commands[side], **settings))
        assert not (folder / "none/accounts/journals").exists(), "the side without a ledger has one"
        failed = False
        urls = {side: worker["url"] for side, worker in workers.items()}
        processes = {side: worker["process"].pid for side, worker in workers.items()}
        for name, body in questions(workers["ledger"]["model"]).items():
            found = asyncio.run(compare(urls, workers["ledger"]["key"], body, options, processes))
            report = judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)
            failed |= not report["within_bounds"]
            print(json.dumps({"question": name} | report), flush=True)
        assert list((folder / "ledger/accounts/journals").iterdir()), "the side with a ledger has none"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
