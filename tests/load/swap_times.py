"""Seconds of a swap by part, on one card: `python -m tests.load.swap_times`, about six minutes on an H200.

Two published geometries with random weights take turns on demand on a card of which they may use --card-mib. Each of --swaps
streamed questions about a picture goes to the other model than the one before, so that each is a swap; its seconds from the
request to the first token are told by part, with the card's memory after it. Prints a table, and writes all as JSON.
Exit status 1 for a swap slower than the model's bound, or for memory that is left.

--engine cpu tries the script on a machine without a GPU; with --layers the models are small enough for that. KEPT_WEIGHTS=FOLDER
keeps the weights for the next run.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lingbi.demand.record import Record
from lingbi.launch.supervision import wait_until
from lingbi.model import catalogue
from tests.geometries import random_weights
from tests.gpu.card import card_used_mib, first_token_s, has_driver
from tests.on_demand import Host, running_on_demand

SWAPS, LEFT_MIB = 20, 64
MOST_S = {"vl-1_8b": 5.0}
MOST_OF_OTHERS_S = 8.0
PARTS = ("check", "turn", "drain", "exit", "fit", "tower", "weights", "engine", "probe", "other", "first token")
READ_BYTES = 64 << 20
RECORDED_S = 10  # for a worker to write what a wake took, which it does after the first token


@dataclass(frozen=True)
class Swap:
    """One question: its model, the seconds to its first token, in all and by part, and MiB of the card after it. parts: of a
    question for which nothing was loaded only the first token."""

    model: str
    seconds: float
    parts: dict[str, float]
    used_mib: int | None


def read_all(folder: Path) -> None:
    """Have the page cache hold a folder."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            while opened.read(READ_BYTES):
                continue


def ask(host: Host, number: int, swap: int, is_on_gpu: bool) -> Swap:
    server, record = host.servers[number], Record(host.state_dir / f"run/worker-{number}.wakes")
    before = record.read().wakes
    seconds = first_token_s(server, swap)
    last = record.read().last if wait_until(lambda: record.read().wakes > before, RECORDED_S) else {}
    parts = last | {"first token": round(seconds - sum(last.values()), 3)}
    return Swap(server["model"], round(seconds, 3), parts, card_used_mib() if is_on_gpu else None)


def table(swaps: list[Swap]) -> str:
    """Medians by model and part."""
    names = sorted({swap.model for swap in swaps})
    lines = [" " * 14 + "".join(f"{name:>32}" for name in names)]

    def row(part: str, value) -> str:
        cells = []
        for name in names:
            values = [value(swap) for swap in swaps if swap.model == name]
            cells.append(f"{statistics.median(values):24.2f} ({max(values):.2f})")
        return f"{part:<14}" + "".join(f"{cell:>32}" for cell in cells)

    lines += [row(part, lambda swap, part=part: swap.parts.get(part, 0.0)) for part in PARTS]
    lines.append(row("first token at", lambda swap: swap.seconds))
    return "\n".join(lines)


def faults(swaps: list[Swap], left_mib: int | None) -> list[str]:
    """What is over its bound."""
    found = []
    for model in {swap.model for swap in swaps}:
        name = next(item.name for item in catalogue.MODELS if item.served_name == model)
        median = statistics.median(swap.seconds for swap in swaps if swap.model == model)
        bound = MOST_S.get(name, MOST_OF_OTHERS_S)
        if median > bound:
            found.append(f"{model}: first token after {median:.2f} s, not {bound}")
    if left_mib is not None and left_mib > LEFT_MIB:
        found.append(f"{left_mib} MiB of the card are left, not {LEFT_MIB}")
    return found


def measure(options: argparse.Namespace, state_dir: Path, folders: list[Path]) -> dict:
    """Swap again and again; the report."""
    is_on_gpu = options.engine == "turbomind"
    before_mib = card_used_mib() if is_on_gpu else 0
    settings = {"LINGBI_ENGINE": options.engine, "LINGBI_CACHE_FRACTION": str(options.cache_fraction)}
    settings |= {"LINGBI_GPU_MEMORY_MIB": str(options.card_mib), "CUDA_VISIBLE_DEVICES": "0"} if is_on_gpu else {}
    asleep_mib = used_mib = None
    with running_on_demand(state_dir, folders, **settings) as host:
        if is_on_gpu:
            asleep_mib = card_used_mib() - before_mib
            drivers = [has_driver(process.pid) for process in host.processes]
            print(f"asleep: {asleep_mib} MiB of the card; first processes have the driver open: {drivers}", flush=True)
        swaps = []
        try:
            for number in range(options.swaps + len(folders)):
                swaps.append(ask(host, number % len(folders), number, is_on_gpu))
                print(json.dumps(asdict(swaps[-1])), flush=True)
            wakes = host.wakes()
        finally:
            for log in sorted((state_dir / "logs").glob("*.log")):
                tail = log.read_text().splitlines()[-options.log_lines :]
                print(f"--- {log.name}", *tail, sep="\n", flush=True)
    report = {"swaps": [asdict(swap) for swap in swaps], "asleep_mib": asleep_mib}
    measured = swaps[len(folders) :]
    if is_on_gpu:
        time.sleep(2)
        used_mib = card_used_mib() - before_mib
        last = {swap.model: swap.used_mib for swap in measured}
        first = {swap.model: swap.used_mib for swap in reversed(swaps[: len(folders)])}
        report["grown_mib"] = max(last[name] - first[name] for name in last)
        report["left_mib"] = used_mib
    print(table(measured), flush=True)
    left = max(report["grown_mib"], report["left_mib"]) if is_on_gpu else None
    report["faults"] = faults(measured, left) if is_on_gpu else []
    if asleep_mib and asleep_mib > LEFT_MIB:
        report["faults"].append(f"models that are asleep hold {asleep_mib} MiB of the card")
    if wakes != len(swaps):
        report["faults"].append(f"{wakes} loads for {len(swaps)} questions, each to another model than the one before")
    return report


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.swap_times", description=__doc__.split(":")[0])
    parser.add_argument("--models", nargs="+", default=["vl-7b", "4khd-7b"], help="names of published models")
    parser.add_argument("--swaps", type=int, default=SWAPS)
    parser.add_argument("--card-mib", type=int, default=24 << 10)
    parser.add_argument("--layers", type=int, help="of the language models (default: as published)")
    parser.add_argument("--engine", choices=("turbomind", "cpu"), default="turbomind")
    parser.add_argument("--cache-fraction", type=float, default=0.9)
    parser.add_argument("--log-lines", type=int, default=40, help="of each log that are printed at the end")
    parser.add_argument("--to", type=Path, help="file for the report")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = [catalogue.find(name) for name in options.models]
        folders = [stack.enter_context(random_weights(one, work / one.served_name, options.layers)) for one in models]
        for folder in folders:
            read_all(folder)
        report = measure(options, work / "state", folders)
    if options.to:
        options.to.write_text(json.dumps(report, indent=1))
    for fault in report["faults"]:
        print(f"FAULT {fault}")
    return int(bool(report["faults"]))


if __name__ == "__main__":
    sys.exit(main())
