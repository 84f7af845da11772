"""kill -9 at many moments, and a restart of everything in the middle: `python -m tests.load.batch_kills`, about ten minutes.

A stack of two workers answers a batch of lines about pictures, by content. A worker that runs is killed each time when a part
of the lines is done, the first one while the input is read; half way the whole stack is drained, stopped and started again.
In the end every `custom_id` must be there once, with the right answer. Prints what it saw as JSON; exit status 1 if not.

--cheap takes half a minute: the workers are real but for the application that answers their lines, and a worker is taken for
dead after a second and a half.
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import openai
import psutil

from lingbi.images.messages import data_url
from lingbi.launch.supervision import Supervisor
from tests.conftest import free_port, free_ports, lingbi, running_stack
from tests.load import batch_kills_cheap as cheap
from tests.system.test_batches import COLOURS, ended_again, line, picture, submit, text_of, told

GOING = ("validating", "in_progress")
LEAST_UP_S = 4.0  # supervisord takes one that ends earlier for one that cannot start
LONGEST_S, AGAIN_S, TRIES = 1500, 0.3, 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lines", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cheap", action="store_true", help="with an application that answers at once")
    options = parser.parse_args(arguments)
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="lingbi-kills-") as folder:
        measured = cheap.measure if options.cheap else measure
        found = measured(Path(folder) / "state", options.kills, options.lines)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    return 1 if found["faults"] else 0


def measure(state_dir: Path, kills: int, count: int) -> dict:
    """Real workers, behind a gateway."""
    ports = {"LINGBI_PORT": free_ports(2), "LINGBI_GATEWAY_PORT": free_port(), "LINGBI_UI_PORT": free_port()}
    settings = {"LINGBI_WORKERS": "2", **{name: str(port) for name, port in ports.items()}}
    names, began = list(COLOURS), time.monotonic()
    lines = [line(f"{names[n % 3]}-{n}", data_url(picture(names[n % 3]))) for n in range(count)]
    with running_stack(state_dir, **settings) as stack:
        url = f"http://127.0.0.1:{ports['LINGBI_GATEWAY_PORT']}/v1"
        client = openai.OpenAI(api_key=stack["key"], base_url=url, max_retries=0, timeout=60)
        batch = submit(client, lines)
        seen = []
        for number in range(kills):
            if number == kills // 2:
                restart(state_dir, settings)
            seen.append(kill(client, batch.id, state_dir, number * count // (kills + 1)))
            print(f"{number + 1} of {kills}: {seen[-1]}", file=sys.stderr)
        batch = ended_again(client, batch.id)
        results = told(client, batch.output_file_id) if batch.output_file_id else []
        errors = told(client, batch.error_file_id) if batch.error_file_id else []
    faults = faults_of([one["custom_id"] for one in lines], results, errors, is_right)
    late = sum(one["status"] not in GOING for one in seen)
    faults += [f"{late} kills came when the batch had ended; give it more --lines"] if late else []
    seconds = round(time.monotonic() - began)
    return {"status": batch.status, "lines": count, "seconds": seconds, "killed": seen, "faults": faults}


def restart(state_dir: Path, settings: dict) -> None:
    """Drain and stop everything, and start it again, as an upgrade does."""
    down = lingbi("down", state_dir=state_dir)
    assert down.returncode == 0, down.stderr
    for _ in range(TRIES):
        up = lingbi("up", "--json", "--model", "demo", "--engine", "cpu", state_dir=state_dir, **settings)
        if "cannot listen" not in up.stderr:  # a connection of somebody else may have one of these ports meanwhile
            break
        time.sleep(AGAIN_S)
    assert up.returncode == 0, up.stderr


def kill(client: openai.OpenAI, batch_id: str, state_dir: Path, least_done: int) -> dict:
    """Kill a worker with -9 a short while after so many lines are done; returns how far the batch was."""
    until = time.monotonic() + LONGEST_S
    status, done = "validating", 0
    while True:
        with contextlib.suppress(openai.OpenAIError):  # nobody answers for a while
            batch = client.batches.retrieve(batch_id)
            status, done = batch.status, batch.request_counts.completed + batch.request_counts.failed
        up = [worker for worker in Supervisor(state_dir).workers_left() if up_s(worker) > LEAST_UP_S]
        if done >= least_done and up:
            break
        assert time.monotonic() < until and (status in GOING or done >= least_done), (status, done)
        time.sleep(AGAIN_S)
    time.sleep(random.uniform(0, 1.0) if least_done else 0)
    with contextlib.suppress(psutil.NoSuchProcess):
        random.choice(up).kill()
    return {"status": status, "done": done}


def up_s(process: psutil.Process) -> float:
    """How long a process has been running; 0 for one that has ended."""
    try:
        return time.time() - process.create_time()
    except psutil.NoSuchProcess:
        return 0.0


def is_right(result: dict) -> bool:
    return COLOURS[result["custom_id"].split("-")[0]] in text_of(result)


def faults_of(asked: list, results: list, errors: list, is_right) -> list:
    """What is wrong with a batch's results: lines that are lost, twice, nobody's, failed, or answered wrongly."""
    counted = Counter(one["custom_id"] for one in [*results, *errors])
    faults = [f"{name} is lost" for name in asked if not counted[name]]
    faults += [f"{name} is there {count} times" for name, count in counted.items() if count > 1]
    faults += [f"{name} was not asked" for name in counted.keys() - set(asked)]
    faults += [f"{one['custom_id']} failed: {one}" for one in errors]
    return faults + [f"{one['custom_id']} is answered wrongly" for one in results if not is_right(one)]


if __name__ == "__main__":
    sys.exit(main())
