"""What a large batch takes of a worker: `python -m tests.load.batch_size`, about five minutes on the CPU engine.

A batch of --small lines and one of --lines are submitted to a worker of their own each, validated, listed, run for --seconds,
listed all the while, and cancelled. Each line asks about a picture, as a data URL. Prints the worker's memory over what it
had before, and how long clients waited, and writes batch_size.json. Exit status 1 where memory grew by more than
MOST_GROWTH_MIB, or where a batch took more than MOST_S to be made or listed.

Submitting is two requests: the upload of the file, whose time is that of its bytes, and the making of the batch, which returns
at once with the status `validating`; the lines are read in the background.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from lingbi.images.messages import data_url
from tests.client import client_options
from tests.conftest import running_worker
from tests.system.test_batches import ENDED, jsonl, line, picture

MOST_GROWTH_MIB, MOST_S = 64, 1.0
SAMPLE_S, POLL_S, LONGEST_S = 0.1, 0.2, 900
COLOURS = ("red", "blue", "green", "yellow")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=100, help="lines of the batch to compare with")
    parser.add_argument("--seconds", type=float, default=60, help="how long each batch runs")
    parser.add_argument("--to", type=Path, default=Path("batch_size.json"))
    options = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory(prefix="lingbi-size-") as folder:
        for name, count in (("small", options.small), ("large", options.lines)):
            found[name] = measured(Path(folder) / name, count, options.seconds)
            print(json.dumps({name: found[name]}, indent=1))
    found["growth_mib"] = found["large"]["peak_mib"] - found["small"]["peak_mib"]
    found["faults"] = faults_of(found)
    options.to.write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"{found['growth_mib']} MiB more for {options.lines} lines than for {options.small}; faults: {found['faults']}"
    )
    return 1 if found["faults"] else 0


def faults_of(found: dict) -> list[str]:
    """What of the figures is over its bound."""
    faults = []
    if found["growth_mib"] > MOST_GROWTH_MIB:
        faults.append(f"memory grew by {found['growth_mib']} MiB, more than {MOST_GROWTH_MIB}")
    for what in ("make_s", "list_max_s", "list_validating_max_s"):
        if found["large"][what] > MOST_S:
            faults.append(f"{what} is {found['large'][what]}, more than {MOST_S}")
    return faults


class Memory:
    """The resident memory of a process: what it had at the beginning, and its peak since."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.peak = process, 0
        self.begin = process.memory_info().rss
        self.is_over = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            thread.join()

    def _watch(self) -> None:
        while not self.is_over.wait(SAMPLE_S):
            self.peak = max(self.peak, self.process.memory_info().rss - self.begin)


def measured(state_dir: Path, count: int, seconds: float) -> dict:
    """The figures of one batch on a worker of its own, which has answered a few lines before."""
    state_dir.mkdir()
    input_file = state_dir / "lines.jsonl"
    write(input_file, count)
    with running_worker(state_dir) as server, httpx.Client(**client_options(server)) as client:
        warm_up(client, state_dir)
        memory = Memory(psutil.Process(server["process"].pid))
        with memory.watched():
            figures = run(client, input_file, seconds)
    sizes = {"file_mib": input_file.stat().st_size, "before_mib": memory.begin, "peak_mib": memory.peak}
    return figures | {"lines": count} | {name: size >> 20 for name, size in sizes.items()}


def write(file: Path, count: int) -> None:
    """Lines of a batch, in an order that has no two alike side by side."""
    urls = [data_url(picture(colour)) for colour in COLOURS]
    with file.open("wb") as stream:
        for number in range(count):
            stream.write(jsonl([line(f"line-{number}", urls[number % len(urls)], max_tokens=4)]))


def warm_up(client: httpx.Client, folder: Path) -> None:
    write(folder / "first.jsonl", 16)
    batch, _ = submitted(client, folder / "first.jsonl")
    until(client, batch, ENDED)


def run(client: httpx.Client, file: Path, seconds: float) -> dict:
    batch, figures = submitted(client, file)
    began = time.monotonic()
    validating = until(client, batch, ("in_progress", *ENDED))
    figures["validated_s"] = round(time.monotonic() - began, 2)
    running = until(client, batch, ENDED, seconds)
    shown = client.get(f"/v1/batches/{batch}").json()
    began = time.monotonic()
    if shown["status"] not in ENDED:
        client.post(f"/v1/batches/{batch}/cancel").raise_for_status()
    cancelling = until(client, batch, ENDED)
    figures["cancelled_s"] = round(time.monotonic() - began, 2)
    figures["lines_run"] = shown["request_counts"]["completed"]
    figures["failed"] = shown["request_counts"]["failed"]
    return figures | {
        "list_validating_max_s": round(max(validating), 3),
        "list_p50_s": round(statistics.median(running), 4),
        "list_max_s": round(max(running + cancelling), 3),
    }


def submitted(client: httpx.Client, file: Path) -> tuple[str, dict]:
    """A batch's id, and how long both requests took."""
    began = time.monotonic()
    with file.open("rb") as stream:
        sent = client.post("/v1/files", files={"file": ("lines.jsonl", stream)}, data={"purpose": "batch"})
    uploaded = time.monotonic()
    asked = {"input_file_id": sent.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = client.post("/v1/batches", json=asked)
    made.raise_for_status()
    figures = {"upload_s": round(uploaded - began, 3), "make_s": round(time.monotonic() - uploaded, 4)}
    return made.json()["id"], figures


def until(client: httpx.Client, batch: str, statuses: tuple, seconds: float = LONGEST_S) -> list[float]:
    """List batches and look at this one until it has a status, or the time is over; the seconds of each list."""
    took, ends = [], time.monotonic() + seconds
    while True:
        began = time.monotonic()
        page = client.get("/v1/batches", params={"limit": 100})
        page.raise_for_status()
        took.append(time.monotonic() - began)
        status = next(one["status"] for one in page.json()["data"] if one["id"] == batch)
        if status in statuses or time.monotonic() > ends:
            assert status in statuses or seconds < LONGEST_S, f"the batch is {status} after {seconds} s"
            return took
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
