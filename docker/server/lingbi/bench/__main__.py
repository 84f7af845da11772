"""Measure servers, or stock lmdeploy and lingbi side by side: `scripts/bench --help`."""

import argparse
import json
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lingbi.bench.questions import KINDS
from lingbi.bench.report import MEMORY, machine, medians, table
from lingbi.bench.running import check_workers, measure_urls
from lingbi.bench.series import LEAST_TALKS, Peak, Sides, each_round, in_turn
from lingbi.bench.sides import Server, gpu_free_mib, serving
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.model.folder import inspect
from lingbi.model.resolve import find_model
from lingbi.model.sizing import cache_room_mib
from lingbi.settings import PREFIX, Settings, load_settings

SIDES = ("stock", "lingbi")
# Share of the free memory for stock's KV cache if lingbi gets an equally large cache on the same card.
SHARED_CARD = 0.3
OWN_CARD, MOST_CACHE = 0.8, 0.95
NO_CACHE = {"stock": 0.005, "lingbi": None}  # lingbi reports how much of its memory is cache
PEOPLE = [1, 8, 32, 64, 128]
FIRST_PORT = 23733
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 measured, 1 some requests failed, 2 configuration, 3 a server did not start, 130 interrupted.

    Whatever was measured is written, however the run ends.
    """
    options = parse(arguments)
    measure = measure_urls if options.url else measure_variants if options.variants else measure_sides
    sides: Sides = {}
    try:
        options.to.mkdir(parents=True, exist_ok=True)
        measure(options, sides)
        status = int(any(figures["failed"] for side in sides.values() for figures in side["rounds"]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    if any(side["rounds"] for side in sides.values()):
        found = {"machine": machine(), "model": options.model, "tokens": options.tokens, "sides": sides}
        report(found | ({"workers": options.workers} if options.workers else {}), options)
    return status


def report(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what was found into the results' folder, and print its table."""
    (options.to / "rounds.json").write_text(json.dumps(found, indent=1))
    (options.to / "medians.json").write_text(json.dumps(medians(found), indent=1))
    print(table(found))
    if options.chart:
        from lingbi.bench.chart import draw  # matplotlib takes seconds to import

        draw(found, options.to / "curves.png")
    print(f"results: {options.to}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split(":")[0])
    parser.add_argument(
        "--url",
        nargs="+",
        help="base URL of a running server or gateway, without /v1; of several, each has its share of the people",
    )
    parser.add_argument(
        "--worker",
        metavar="URL",
        help="with --url: one of the workers there; it is asked by its share of the people alone, in turns with all, and the "
        "table says how fast all are beside so many times this one",
    )
    parser.add_argument("--workers", type=int, help="with --worker: how many answer at --url (default: a worker a URL)")
    parser.add_argument(
        "--model",
        help="model folder or name: starts stock lmdeploy and lingbi on it (needs a GPU); with --url: the name of the one "
        "to ask of several",
    )
    parser.add_argument("--api-key-file", type=Path, help="with --url: file with the key")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument(
        "--gpus", nargs="+", type=int, default=[0], help="one for each side, or one for both (default 0)"
    )
    parser.add_argument(
        "--ask",
        nargs="+",
        type=series,
        default=[(kind, PEOPLE) for kind in KINDS],
        metavar="KIND:PEOPLE",
        help=f"what, and how many at once: image:1,8,32; kinds {', '.join(KINDS)} (default: all, {PEOPLE})",
    )
    parser.add_argument(
        "--with",
        dest="variants",
        action="append",
        type=environment,
        metavar="SETTINGS",
        help="run lingbi alone with these settings, once for each --with: 'PREFILL_TOKENS=2048 GPU_MEMORY_MIB=24000'",
    )
    parser.add_argument(
        "--talks",
        type=int,
        default=3,
        help=f"conversations per person in a round (default 3); more if a round would have fewer than {LEAST_TALKS}",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="first port of the servers it starts")
    parser.add_argument("--starts", type=int, default=0, help="with --model: starts to time, without KV cache")
    parser.add_argument("--tokens", type=int, default=128, help="length of an answer (default 128)")
    parser.add_argument("--to", type=Path, default=Path("bench"), help="folder for the results (default bench)")
    parser.add_argument("--chart", action=argparse.BooleanOptionalAction, default=True, help="draw curves.png")
    options = parser.parse_args(arguments)
    if not options.url and not options.model:
        parser.error("give --url of a running server, or --model to start one")
    fault = check_workers(options)
    if fault:
        parser.error(fault)
    if options.variants and options.url:
        parser.error("--with starts servers with these settings: it goes with --model, not with --url")
    if options.variants and len(options.variants) > len({tuple(sorted(one.items())) for one in options.variants}):
        parser.error("the same --with twice: give each once, and more --rounds")
    return options


def series(text: str) -> tuple[str, list[int]]:
    """(kind, numbers of people) of KIND:PEOPLE,…"""
    kind, _, people = text.partition(":")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"{kind!r} is no kind; there are {', '.join(KINDS)}")
    return kind, [int(number) for number in people.split(",")] if people else PEOPLE


def environment(text: str) -> dict[str, str]:
    """Environment variables for lingbi from NAME=VALUE pairs with spaces between; none: lingbi chooses.

    All are validated before the first measurement.
    """
    pairs = [part.partition("=") for part in text.split()]
    if not all(separator for _, separator, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=VALUE, with spaces between")
    values = {name.removeprefix(PREFIX): value for name, _, value in pairs}
    unknown = [name for name in values if name.lower() not in Settings.model_fields]
    if unknown:
        raise argparse.ArgumentTypeError(f"{text!r}: there is no setting {PREFIX}{unknown[0]}")
    try:
        load_settings(**{name.lower(): value for name, value in values.items()})
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return {PREFIX + name: value for name, value in values.items()}


def measure_variants(options: argparse.Namespace, sides: Sides) -> None:
    """Measure lingbi with each variant of settings in turn on the first GPU: memory, then rounds, into sides."""
    settings, gpu = load_settings(), options.gpus[0]
    folder = inspect(find_model(options.model, settings.models_dir).path)
    options.model = folder.served_name
    work = Path(tempfile.mkdtemp(prefix="lingbi-bench-"))
    for number, variant in enumerate(options.variants):
        name = " ".join(f"{key.removeprefix(PREFIX)}={value}" for key, value in variant.items()) or "lingbi's choice"
        with (
            serving("lingbi", folder, work / str(number), options.port, gpu, None, **variant) as server,
            Peak(gpu) as peak,
        ):
            rounds = list(each_round(server.target, options, fixed_length=True, gpu=gpu))
        sides[name] = {figure: [value] for figure, value in server.figures().items()} | {
            "gpu_planned_mib": server.planned_mib,
            "gpu_peak_mib": peak.most_mib - server.before_mib,
            "rounds": rounds,
        }


def measure_sides(options: argparse.Namespace, sides: Sides) -> None:
    """Measure starts and memory, then rounds of all sides in turn (one card) or at once (a card each), into sides."""
    settings = load_settings()
    folder = inspect(find_model(options.model, settings.models_dir).path)
    options.model = folder.served_name
    if len(options.gpus) not in (1, len(options.sides)):
        raise ConfigurationError(f"--gpus {options.gpus}: give one GPU, or one for each of {options.sides}")
    gpus = dict(zip(options.sides, options.gpus * len(options.sides), strict=False))
    sides |= {side: {name: [] for name in ("starts_s", *MEMORY, "rounds")} for side in options.sides}
    work = Path(tempfile.mkdtemp(prefix="lingbi-bench-"))
    for number in range(options.starts):
        for side in options.sides:
            place = work / f"{side}-start-{number}"
            with serving(side, folder, place, options.port, gpus[side], NO_CACHE[side]) as server:
                for name, value in server.figures().items():
                    sides[side][name].append(value)
    is_shared = len(options.gpus) == 1 and len(options.sides) > 1
    share, servers = SHARED_CARD if is_shared else OWN_CARD, {}
    with ExitStack() as stack:
        for index, side in enumerate(sorted(options.sides, key=SIDES.index)):
            started = serving(side, folder, work / side, options.port + index, gpus[side], share)
            server = servers[side] = stack.enter_context(started)
            memory = (
                f"{server.gpu_mib} MiB, {server.asked_mib} after a question, besides {server.cache_mib} of KV cache"
            )
            print(side, f"started in {server.start_s:.2f} s, {memory}", file=sys.stderr)
            if is_shared and index == 0:
                room_mib = cache_room_mib(folder, gpu_free_mib(gpus[side]), settings.hd_num)
                share = min(MOST_CACHE, server.cache_mib / room_mib)
        run = _at_once if len(options.gpus) > 1 else _in_turn
        run(servers, options, sides, gpus)


def _in_turn(servers: dict[str, Server], options: argparse.Namespace, sides: Sides, gpus: dict[str, int]) -> None:
    in_turn({side: each_round(server.target, options, fixed_length=True) for side, server in servers.items()}, sides)


def _at_once(servers: dict[str, Server], options: argparse.Namespace, sides: Sides, gpus: dict[str, int]) -> None:
    def measure(side: str) -> None:
        sides[side]["rounds"].extend(each_round(servers[side].target, options, True, gpus[side]))

    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(measure, servers))


if __name__ == "__main__":
    # An interrupt must also stop the started servers; a job that a shell starts with `&` ignores SIGINT by default.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
