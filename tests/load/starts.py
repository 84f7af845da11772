"""What a start in containers costs: `docker compose up --wait` and the native start of the same stack, in turns.

`python -m tests.load.starts` builds the images where they are not there, has both bring up server, page and
gateway with the demo model on the CPU engine, and prints the seconds of each round and what Compose takes more.
KEEP_IMAGES=1 leaves the images for the next run. Exit status 1 where it takes longer than MOST_MORE_S.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.compose.conftest import copy_repository, new_stack
from tests.conftest import free_port, lingbi
from tests.containers import engine, images

MOST_MORE_S = 10.0


def seconds_of(start) -> float:
    """How long a start takes; it must succeed."""
    begun = time.monotonic()
    done = start()
    assert done.returncode == 0, done.stderr
    return time.monotonic() - begun


def native(state_dir: Path) -> float:
    """Seconds of scripts/up; all is ended afterwards."""
    try:
        return seconds_of(lambda: lingbi("up", "--json", "--port", free_port(), state_dir=state_dir))
    finally:
        lingbi("down", state_dir=state_dir)


def in_containers(stack) -> float:
    """Seconds of docker compose up --wait; containers are removed afterwards, volumes stay."""
    try:
        return seconds_of(lambda: stack.compose("up", "--wait"))
    finally:
        stack.compose("down")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.starts", description=__doc__.split(":")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    started = engine.ensure()
    tags = [images.build(name) for name in images.NAMES]
    sides = {"compose": [], "native": []}
    try:
        with tempfile.TemporaryDirectory() as work, new_stack(copy_repository(Path(work) / "stack")) as stack:
            first = stack.up()  # writes secrets, and fills the volumes
            assert first.returncode == 0, first.stderr
            stack.compose("down")
            for number in range(options.rounds):
                sides["compose"].append(in_containers(stack))
                sides["native"].append(native(Path(work) / f"native-{number}"))
    finally:
        if not os.environ.get("KEEP_IMAGES"):
            images.docker("rmi", "--force", *tags, check=False)
        if started:
            started.terminate()
            started.wait(30)
    more = statistics.median(ours - theirs for ours, theirs in zip(*sides.values(), strict=True))
    report = {f"{side}_s": [round(value, 1) for value in values] for side, values in sides.items()}
    print(json.dumps({"more_s": round(more, 1), "within_bounds": more <= MOST_MORE_S} | report))
    return int(more > MOST_MORE_S)


if __name__ == "__main__":
    sys.exit(main())
