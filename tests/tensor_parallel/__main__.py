"""`python -m tests.tensor_parallel --to FILE`: two GPUs as one, measured; about four minutes. Exit status 1: it is not right.

1. The demo model with two key-value heads, on one card and on two: the same answers, right by content.
2. Random weights in vl-7b's geometry on two cards of which little may be taken: new pictures, follow-ups and clients that
   leave, as many at once as never stops; memory of each card beside what was planned.
3. The same weights on one card and on two: what both say of the next token at many places, and how fast.

What was found is in FILE after each part, so a run that stops for ever still leaves the parts before it.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import pynvml
import torch

from lingbi.bench.__main__ import Peak
from lingbi.bench.sides import gpu_used_mib
from tests.conftest import DEMO, ROOT, clean_environment, running_server
from tests.geometries import PUBLISHED
from tests.tensor_parallel.comparison import compare, first_difference, is_same
from tests.tensor_parallel.soak import Soak
from tests.tensor_parallel.two_heads import make_two_heads
from training.demo.score import PASS_MARK, UrlModel, score_model

MODEL = "internlm-xcomposer2-vl-7b"
CARD_MIB, ALONE_MIB = 12_000, 24_000
PICTURES, THREADS, EQUAL_ANSWERS = 60, 8, 0.99
SOAK_S, PEOPLE = 45, 24
PROMPTS, OWN_PROMPTS, PATH_TOKENS, GREEDY_TOKENS = 12, 3, 16, 64
REPLY_S = 60
WITHIN = 0.05
BOUNDS = {"LINGBI_LOAD_TIMEOUT_S": "90", "LINGBI_DRAIN_TIMEOUT_S": "10"}  # a server that has stopped ends soon
VOCABULARY = range(1000, 90_000)  # ordinary tokens


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", type=Path, required=True, help="file for what was found")
    options = parser.parse_args(arguments)
    return 0 if measure(options.to)["is_right"] else 1


def measure(to: Path) -> dict:
    """Everything, on the first two GPUs; prints a table and returns what the file then holds."""
    found = {"cards": [card_name(0), card_name(1)], "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        weights = pool.submit(make_weights, Path(folder) / "weights")
        for name, part in (("content", by_content), ("load", under_load), ("numbers", by_numbers)):
            if name != "content":
                weights.result()
            part_began = time.monotonic()
            try:
                found[name] = part(Path(folder))
            except Exception as error:  # the other parts are worth knowing, whatever it was
                traceback.print_exc()
                found[name] = {"error": repr(error), "is_right": False}
            found[name]["seconds"] = round(time.monotonic() - part_began, 1)
            found["is_right"] = all(found[done]["is_right"] for done in ("content", "load", "numbers") if done in found)
            to.write_text(json.dumps(found, indent=1))
            show(name, found[name])
    print(f"right: {found['is_right']}; {time.monotonic() - began:.0f} s in all", flush=True)
    return found


def show(name: str, found: dict) -> None:
    print(f"\n{name}")
    for key, value in found.items():
        print(f"  {key:<22} {value}", flush=True)


def make_weights(to: Path) -> None:
    command = [sys.executable, "-m", "lingbi.model.random", PUBLISHED / MODEL, "--to", to]
    command += ["--tokenizer", PUBLISHED / "tokenizer.model"]
    subprocess.run([*map(str, command)], env=clean_environment(to), check=True)


def card_name(card: int) -> str:
    pynvml.nvmlInit()
    name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(card))
    return name.decode() if isinstance(name, bytes) else name


@contextmanager
def server(folder: Path, model: Path, cards: int, **settings: str):
    """A server of a folder on the first card or on both."""
    visible = ",".join(map(str, range(cards)))
    environment = {"CUDA_VISIBLE_DEVICES": visible, "LINGBI_TP": str(cards)} | BOUNDS | settings
    with running_server(folder, "--model", model, "--engine", "turbomind", **environment) as report:
        yield report


def by_content(folder: Path) -> dict:
    """The demo model on one card and on two."""
    model = make_two_heads(DEMO, folder / "two heads")
    before = gpu_used_mib(1)
    small = {"LINGBI_GPU_MEMORY_MIB": "4000"}
    with ExitStack() as stack:
        reports = [stack.enter_context(server(folder / f"demo {cards}", model, cards, **small)) for cards in (1, 2)]
        second_mib = gpu_used_mib(1) - before
        judged = []
        for report in reports:
            judged.append(score_model(UrlModel(report["url"] + "/v1", report["key"]), PICTURES, threads=THREADS))
        planned = httpx.get(reports[1]["url"] + "/ready", trust_env=False).json()["gpu"]
    right = [sum(verdict.fault is None for verdict in verdicts) / len(verdicts) for verdicts in judged]
    same = [one.answer == other.answer for one, other in zip(*judged, strict=True)]
    equal = sum(same) / len(same)
    return {
        "questions": len(same),
        "right_on_one": round(right[0], 4),
        "right_on_two": round(right[1], 4),
        "equal_answers": round(equal, 4),
        "second_card_mib": second_mib,
        "second_planned_mib": planned["total_mib"] - planned["tower_mib"],
        "is_right": right[1] >= PASS_MARK and equal >= EQUAL_ANSWERS,
    }


def under_load(folder: Path) -> dict:
    """A server on two small cards that is never idle; memory of each card at most."""
    before = [gpu_used_mib(card) for card in (0, 1)]
    serving = server(folder / "load", folder / "weights", 2, LINGBI_GPU_MEMORY_MIB=str(CARD_MIB))
    with Peak(0) as first, Peak(1) as second, serving as report:
        began = time.monotonic()
        soak = Soak(report, began + SOAK_S)
        asyncio.run(soak.run(PEOPLE))
        seconds = time.monotonic() - began
        ready = httpx.get(report["url"] + "/ready", trust_env=False)
        planned = ready.json()["gpu"]
    measured = [peak.most_mib - used for peak, used in zip((first, second), before, strict=True)]
    plans = [planned["total_mib"], planned["total_mib"] - planned["tower_mib"]]
    off = [plan / mib - 1 for plan, mib in zip(plans, measured, strict=True)]
    return {
        "counts": dict(soak.counts),
        "faults": soak.faults[:5],
        "requests_per_s": round(sum(soak.counts.values()) / seconds, 2),
        "pieces_per_s": round(soak.tokens / seconds, 1),
        "planned_mib": plans,
        "measured_mib": measured,
        "off_percent": [round(100 * share, 1) for share in off],
        "planned_within_5": all(abs(share) <= WITHIN for share in off),
        "parts_mib": {name: planned[name] for name in ("weights_mib", "runtime_mib", "cache_mib", "tower_mib")},
        "is_right": not soak.faults and ready.status_code == 200,
    }


class Engine:
    """An engine in a process of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def ask(self, do: str, **options):
        self.connection.send({"do": do} | options)
        return self.reply()

    def reply(self, timeout_s: float = REPLY_S):
        if not self.connection.poll(timeout_s):
            raise TimeoutError(f"an engine has said nothing for {timeout_s:.0f} s")
        return self.connection.recv()


@contextmanager
def engine(folder: Path, model: Path, cards: int, limit_mib: int):
    """A new process with an engine on the first card or on both; it loads, and `reply` says when it is ready."""
    visible = ",".join(map(str, range(cards)))
    environment = clean_environment(folder / f"engine {cards}") | {"CUDA_VISIBLE_DEVICES": visible}
    environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    module = "tests.tensor_parallel.one_engine"
    ours, theirs = Pipe()
    with ours:
        with theirs:
            given = (model, cards, limit_mib, theirs.fileno())
            command = [sys.executable, "-m", module, *map(str, given)]
            process = subprocess.Popen(command, env=environment, cwd=ROOT, pass_fds=[theirs.fileno()])
        try:
            yield Engine(ours)
        finally:
            process.kill()
            process.wait()


def by_numbers(folder: Path) -> dict:
    """The same weights on one card and on two: what each says of the next token, and how fast."""
    chance = random.Random(0)
    asked = [
        {"ids": chance.sample(VOCABULARY, 80 + 20 * number), "seed": number if number % 2 else None}
        for number in range(PROMPTS)
    ]
    paths = [chance.sample(VOCABULARY, PATH_TOKENS) for _ in asked]
    weights = folder / "weights"
    with engine(folder, weights, 1, ALONE_MIB) as one, engine(folder, weights, 2, CARD_MIB) as two:
        ready = [each.reply(3 * REPLY_S)["ready_s"] for each in (one, two)]
        sums = [[each.ask("features", seed=seed) for seed in range(4)] for each in (one, two)]
        walks = [
            [each.ask("along", path=path, **item) for path, item in zip(paths, asked, strict=True)]
            for each in (one, two)
        ]
        anew = [
            one.ask("along", path=path, anew=True, **item)
            for path, item in zip(paths[:OWN_PROMPTS], asked[:OWN_PROMPTS], strict=True)
        ]
        answers = [[each.ask("greedy", tokens=GREEDY_TOKENS, **item) for item in asked] for each in (one, two)]
        parted = at_first_differences(asked, answers, one, two)
    own = compare(flat(walks[0][:OWN_PROMPTS]), flat(anew))
    pair = compare(flat(walks[0]), flat(walks[1]))
    wrong = compare(flat(walks[0]), flat(walks[0][1:] + walks[0][:1]))  # of other prompts: this must be told apart
    times = [sorted(answer["seconds"] for answer in answers[each][::2])[PROMPTS // 4] for each in (0, 1)]
    return {
        "ready_s": [round(seconds, 1) for seconds in ready],
        "equal_features": sums[0] == sums[1],
        "one_with_itself": own.told(),
        "one_with_two": pair.told(),
        "with_other_prompts": wrong.told(),
        "answers_parted": parted,
        f"text_{GREEDY_TOKENS}_tokens_s": [round(seconds, 3) for seconds in times],
        "is_right": sums[0] == sums[1] and is_same(pair, own) and not is_same(wrong, own),
    }


def at_first_differences(asked: list[dict], answers: list[list[dict]], one: Engine, two: Engine) -> list[dict]:
    """Where greedy answers part: after how many tokens, and by how much each engine prefers its own token there."""
    parted = []
    for item, first, second in zip(asked, *answers, strict=True):
        place = first_difference(first["ids"], second["ids"])
        if place is None:
            continue
        tokens = (first["ids"][place], second["ids"][place])
        seen = [each.ask("after", path=first["ids"][:place], **item) for each in (one, two)]
        gaps = [round(abs(top.get(tokens[0], -9) - top.get(tokens[1], -9)), 4) for top in seen]
        parted.append({"picture": item["seed"] is not None, "after": place, "gaps": gaps})
    return parted


def flat(walks: list[list[dict]]) -> list[dict]:
    return [place for walk in walks for place in walk]


if __name__ == "__main__":
    sys.exit(main())
