"""What a change of the code costs: this tree's worker and an earlier commit's, asked the same in turns.

`python -m tests.load.earlier COMMIT` checks the commit out beside this tree, starts a worker of each (the demo model on the
CPU engine unless --model and --engine name others), and asks both the same questions in alternating rounds. It prints
requests/s and the time to first token of each side and the ratios of the rounds, so that what else the machine does weighs
on both. Both run in this environment: a commit with other locks needs its own.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import DEMO, ROOT, running_worker
from tests.load.overhead import MAX_COST, MAX_FIRST_TOKEN_MS, questions
from tests.load.sides import compare, judge

SIDES = ("now", "earlier")


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The tree of a commit, in a folder that is not there yet."""
    subprocess.run(["git", "worktree", "add", "--detach", folder, commit], cwd=ROOT, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def code_of(tree: Path) -> dict[str, str]:
    """The environment variable that makes Python import the server of this tree."""
    return {
        "PYTHONPATH": os.pathsep.join(str(tree / "docker" / part) for part in ("server", "pictures", "gateway", "ui"))
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 within the bounds, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--model", default=str(DEMO))
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--count", type=int, default=16, help="requests of a side in a round")
    parser.add_argument("--concurrent", type=int, default=8)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, checked_out(options.commit, Path(folder, "tree")) as tree:
        return measure_both(options, Path(folder), dict(zip(SIDES, (ROOT, tree), strict=True)))


def measure_both(options: argparse.Namespace, folder: Path, trees: dict[str, Path]) -> int:
    settings = {"LINGBI_MODEL": options.model, "LINGBI_ENGINE": options.engine}
    with contextlib.ExitStack() as running:
        workers = {}
        for side, tree in trees.items():
            state = folder / side
            state.mkdir()
            (state / "api-key").write_text("one-key-for-both-sides\n")
            workers[side] = running.enter_context(running_worker(state, **settings, **code_of(tree)))
        urls = {side: worker["url"] for side, worker in workers.items()}
        failed = False
        for name, body in questions(workers["now"]["model"]).items():
            found = asyncio.run(compare(urls, workers["now"]["key"], body, options))
            report = judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)
            failed |= not report["within_bounds"]
            print(json.dumps({"question": name} | report), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
