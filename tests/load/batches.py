"""What batches take from people, and what they get of a card: `python -m tests.load.batches`, about three minutes on a GPU.

One worker, and one after the other: pictures asked by many at once (`lingbi.bench`), the same as lines of a batch; people who
ask alone; the same people beside a batch, once for each --with of rules (lingbi/engine/background.py); and the people alone again,
so that a drift of the machine is seen. Needs no network, container or nginx. Prints a table, and writes batches.json.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import httpx

from lingbi.bench.client import Target
from lingbi.bench.questions import KINDS
from lingbi.bench.report import machine
from lingbi.bench.rounds import Askers
from lingbi.engine.background import Background, Rules
from lingbi.model.resolve import DEMO_FOLDER
from tests.load.batch_sides import Lines, People, beside, figures_of, left_of, run_batch

ROOT = Path(__file__).parents[2]
START_S, STOP_S, LOOK_S = 900, 60, 0.2
WARM_UP_SEED, SEED = 10**6, 1
ENOUGH = {"batch_of_bench": 0.97, "tokens_s": 0.9, "kept": 0.8}
MOST = {"ttft_p95": 1.25}
RATIOS = {"ttft_p95": "ttft_p95_ms", "tokens_s": "tokens_s"}  # of people beside a batch and alone
HEADS = ("TTFT p50", "p95 ms", "gap p95", "an answer", "tokens/s", "lines/s", "TTFT x", "tokens x", "kept", "by time")
WIDTH = 34


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 the goals are reached with the first rules, 1 not."""
    if arguments is None and sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder, serving(options, Path(folder) / "state") as (target, process):
        found = {"machine": machine(), "model": target.model} | measure(options, target, process)
    options.to.mkdir(parents=True, exist_ok=True)
    (options.to / "batches.json").write_text(json.dumps(found, indent=1))
    print(table(found), flush=True)
    print(f"results: {options.to / 'batches.json'}")
    return int(not all(found["goals"].values()))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.load.batches", description=__doc__.split(":")[0])
    parser.add_argument("--model", default=str(DEMO_FOLDER), help="model folder or name (default: the demo)")
    parser.add_argument("--port", type=int, default=23833)
    parser.add_argument("--at-once", type=int, default=128, help="questions at once of the benchmark")
    parser.add_argument("--talks", type=int, default=3, help="questions of each; the batch alone has as many lines")
    parser.add_argument("--tokens", type=int, default=128, help="length of all answers")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--kind", choices=KINDS, default="image", help="what people ask")
    parser.add_argument(
        "--pause",
        dest="pauses",
        type=float,
        nargs="+",
        default=[0.0],
        metavar="SECONDS",
        help="from an answer to the next question of a person; all is measured with each (default 0)",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a measurement with people")
    parser.add_argument("--settle", type=float, default=6.0, help="seconds before it, which do not count")
    parser.add_argument(
        "--with",
        dest="rules",
        action="append",
        type=rules_of,
        metavar="RULES",
        help=f"rules to compare, one --with each, as in 'share=0.2 beside=2'; '' for these: {asdict(Rules())}",
    )
    parser.add_argument(
        "--split",
        type=int,
        default=0,
        metavar="TOKENS",
        help="have the engine compute prompts in parts of so many tokens, each beside a token of every running answer",
    )
    parser.add_argument("--to", type=Path, default=Path("bench"), help="folder for the results (default bench)")
    options = parser.parse_args(arguments)
    options.rules = options.rules or [Rules()]
    return options


def rules_of(text: str) -> Rules:
    """Rules of NAME=VALUE pairs with spaces between; the others are the defaults."""
    kinds = {field.name: type(getattr(Rules(), field.name)) for field in fields(Rules)}
    given = dict(pair.partition("=")[::2] for pair in text.split())
    if unknown := given.keys() - kinds:
        raise argparse.ArgumentTypeError(f"there is no rule {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
    return replace(Rules(), **{name: kinds[name](value) for name, value in given.items()})


def serve(split: int) -> None:
    """Be a worker whose rules come on the standard input, one JSON object a line. split: as in `split_prompts`, or 0."""
    from lingbi.settings import Settings
    from lingbi.worker.main import Worker, exit_now
    from lingbi.worker.main import main as work

    def live(settings: Settings) -> int:
        worker = Worker(settings)
        threading.Thread(target=obey, args=(worker.service.background,), daemon=True).start()
        return worker.run()

    if split:
        split_prompts(split)
    exit_now(work(live))


def split_prompts(tokens: int) -> None:
    """Have TurboMind compute prompts in parts of so many tokens ("dynamic split-fuse")."""
    from lmdeploy.messages import TurbomindEngineConfig

    from lingbi.engine.local import EngineNeeds

    whole = EngineNeeds.backend_config

    def in_parts(needs: EngineNeeds) -> TurbomindEngineConfig:
        config = whole(needs)
        config.num_tokens_per_iter = tokens
        config.max_prefill_iters = -(-config.session_len // tokens)
        return config

    EngineNeeds.backend_config = in_parts  # type: ignore[method-assign]


def obey(background: Background) -> None:
    for line in sys.stdin:
        background.rules = Rules(**json.loads(line))


@contextlib.contextmanager
def serving(options: argparse.Namespace, state_dir: Path) -> Iterator[tuple[Target, subprocess.Popen]]:
    """A worker of this tree, until the block ends."""
    state_dir.mkdir(parents=True)
    paths = [str(ROOT / "docker" / part) for part in ("server", "pictures")] + [str(ROOT)]
    settings = {"MODEL": options.model, "PORT": str(options.port), "STATE_DIR": str(state_dir)}
    environment = os.environ | {f"LINGBI_{name}": value for name, value in settings.items()}
    environment["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.load.batches", "--serve", str(options.split)]
    log = (state_dir / "worker.log").open("wb")
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
    )
    url = f"http://127.0.0.1:{options.port}"
    try:
        model = wait_until_ready(url, process, state_dir / "worker.log")
        yield Target(url, (state_dir / "api-key").read_text().split()[0], model), process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def wait_until_ready(url: str, process: subprocess.Popen, log: Path) -> str:
    """The name of the model that is served, once it is."""
    until = time.monotonic() + START_S
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                answer = client.get(f"{url}/ready")
                if answer.status_code == 200:
                    return answer.json()["model"]
            time.sleep(LOOK_S)
    raise SystemExit(f"the worker did not become ready; its log ends:\n{log.read_text(errors='replace')[-3000:]}")


def say(what: str, figures: dict) -> None:
    print(what, json.dumps(figures), file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, target: Target, process: subprocess.Popen) -> dict:
    """All that the table shows."""
    bench = measure_bench(options, target)
    lines = Lines(target, options.tokens, options.at_once * 4)
    alone = asyncio.run(run_batch(target, lines.file(options.at_once * options.talks)))
    say("batch alone", alone)
    asked = {name: value for name, value in vars(options).items() if name not in ("rules", "to")}
    found = {"options": asked, "bench": bench, "batch_alone": alone}
    found["batch_of_bench"] = round(alone["lines_s"] / bench["req_s"], 4)
    found["people"] = [measure_people(options, pause, target, process, lines, alone) for pause in options.pauses]
    return found | {"goals": judged(found)}


def measure_people(
    options: argparse.Namespace, pause: float, target: Target, process: subprocess.Popen, lines: Lines, alone: dict
) -> dict:
    """People who pause so long: alone, beside a batch with each of the rules, and alone again."""
    people = People(target, options, pause)

    def ask_alone(when: str) -> dict:
        figures = figures_of(asyncio.run(people.ask(options.settle / 2, options.seconds)))
        say(f"people alone, pause {pause:g} s, {when}", figures)
        return figures

    before, rows = ask_alone("before"), []
    for number, rules in enumerate(options.rules):
        process.stdin.write(json.dumps(asdict(rules)) + "\n")
        process.stdin.flush()
        count = int(alone["lines_s"] * (options.settle + options.seconds) * 1.5) + 2 * options.at_once
        found = asyncio.run(beside(target, lines.file(count), people, options))
        rows.append({"rules": asdict(rules)} | found)
        say(f"beside a batch, pause {pause:g} s, rules {number + 1}", found)
    both = [before, ask_alone("after")]
    usual = {name: sum(one[name] for one in both) / len(both) for name in before}
    for row in rows:
        seen = row["people"]
        row["ratios"] = {name: round(seen[field] / usual[field], 3) for name, field in RATIOS.items()}
        row["ratios"] |= left_of(alone["lines_s"], row, usual, options.tokens)
    return {"pause": pause, "alone": both, "beside": rows}


def measure_bench(options: argparse.Namespace, target: Target) -> dict:
    with Askers() as askers:
        askers.ask_round(target, "image", min(8, options.at_once), 1, options.tokens, WARM_UP_SEED, True)
        figures = askers.ask_round(target, "image", options.at_once, options.talks, options.tokens, SEED, True)
    say("bench", figures)
    return figures


def judged(found: dict) -> dict:
    """Which goals the first rules reach, with the first pause."""
    ratios = found["people"][0]["beside"][0]["ratios"] | {"batch_of_bench": found["batch_of_bench"]}
    goals = {name: ratios[name] is None or ratios[name] >= least for name, least in ENOUGH.items()}
    return goals | {name: ratios[name] <= most for name, most in MOST.items()}


def table(found: dict) -> str:
    options, alone = found["options"], found["batch_alone"]
    lines = [
        f"{found['model']}, {', '.join(found['machine']['gpus']) or found['machine']['cpu']}",
        f"bench, {options['at_once']} at once: {found['bench']['req_s']:.2f} requests/s, {found['bench']['failed']} failed",
        f"batch alone: {alone['lines_s']:.2f} lines/s, {found['batch_of_bench']:.3f} of it",
    ]
    for people in found["people"]:
        asked = f"{options['people']} people, {options['kind']}, pause {people['pause']:g} s"
        lines += ["", f"{asked:<{WIDTH}}" + "".join(f"{head:>10}" for head in HEADS)]
        lines += [_row("alone", one, []) for one in people["alone"]]
        for row in people["beside"]:
            usual = asdict(Rules())
            rules = " ".join(f"{name}={value:g}" for name, value in row["rules"].items() if value != usual[name])
            lines.append(_row(rules or "beside a batch", row["people"], [row["lines_s"], *row["ratios"].values()]))
    goals = [f"{name} at least {least}" for name, least in ENOUGH.items()]
    goals += [f"{name} at most {most}" for name, most in MOST.items()]
    missed = [name for name, is_reached in found["goals"].items() if not is_reached]
    lines += ["", f"goals, with the first rules: {', '.join(goals)}; missed: {', '.join(missed) or 'none'}"]
    return "\n".join(lines)


def _row(name: str, people: dict, others: list) -> str:
    values = [people["ttft_p50_ms"], people["ttft_p95_ms"], people["gap_p95_ms"], people["answer_tokens_s"]]
    values += [people["tokens_s"], *others]
    return f"{name:<{WIDTH}}" + "".join(f"{'-' if value is None else format(value, '.2f'):>10}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
