"""scripts/plan: the models, what they need, what is here for them, and where the workers of those asked for would go."""

import argparse
import json
import sys
from dataclasses import asdict

from lingbi import planner
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.model import catalogue, wanted
from lingbi.model.folder import inspect
from lingbi.model.gpus import TURBOMIND, Gpu, choose_engine, together
from lingbi.model.host_memory import needed_mib
from lingbi.model.resolve import DEMO_FOLDER, find_model
from lingbi.model.resources import Resources, find_resources
from lingbi.model.share import can_share, share_of
from lingbi.model.sizing import BITS, Wanted, fit, least_mib
from lingbi.placement.seats import Placement, Seat
from lingbi.placement.together import PAIR
from lingbi.settings import Settings, load_settings

HEAD = ("name", "ModelScope id", "weights", "geometry", "KV cache", "picture", "session", "template", "card", "here")
SEAT_HEAD = (
    "worker",
    "model",
    "place",
    "at most",
    "weights",
    "beside them",
    "KV cache",
    "session",
    "answers",
    "a step",
)
FIT_HEAD = ("name", "at most", "weights", "beside them", "KV cache", "tokens", "session", "answers", "a step")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for a setting that cannot be used, or for a GPU that has room for no model."""
    options = parse(arguments)
    try:
        settings, here = load_settings(model=options.model), find_resources()
        asked = assumed(here, options.gpu_mib)
        if options.json:
            print(json.dumps(report(planner.plan(on(asked, settings), asked))))
            return 0
        show(settings, here, options.gpu_mib)
        if options.model or len(wanted.parse(settings.model)) > 1:
            show_placement(planner.plan(on(asked, settings), asked))
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/plan", description=__doc__.split(": ")[1])
    parser.add_argument(
        "--gpu-mib",
        nargs="+",
        type=int,
        default=[],
        metavar="MIB",
        help="plan for GPUs, or slices of one, with so much free memory, instead of those that are here",
    )
    parser.add_argument(
        "--model",
        action=wanted.Joined,
        help="show where its workers would go; several times for several models, and NAME*3 for three workers "
        "(default: LINGBI_MODEL, where that names several)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print only where the workers would go, as one line of JSON"
    )
    return parser.parse_args(arguments)


def assumed(here: Resources, asked_mib: list[int]) -> Resources:
    """What is here, or GPUs with so much memory in place of those that are."""
    gpus = [Gpu(str(number), "assumed", mib, mib) for number, mib in enumerate(asked_mib)]
    return Resources(gpus, here.host_mib) if gpus else here


def on(asked: Resources, settings: Settings) -> Settings:
    """The settings for a question about GPUs that are assumed: whatever engine is here, they are for TurboMind."""
    is_assumed = any(gpu.name == "assumed" for gpu in asked.gpus)
    return settings.model_copy(update={"engine": TURBOMIND}) if is_assumed else settings


def show_placement(placement: Placement) -> None:
    """A row for each worker, in the order of their ports."""
    print(f"\nWhere the workers would go, on the engine {placement.choice.engine}:")
    print(table([SEAT_HEAD, *(seat_row(number, seat) for number, seat in enumerate(placement.seats))]))


def seat_row(number: int, seat: Seat) -> tuple[str, ...]:
    """A worker's model, place and engine settings, in MiB and tokens."""
    place = "host memory" if seat.device is None else f"GPU {seat.device}"
    found = seat.fit
    if found is None:
        return (str(number), seat.served_name, place, "known once it is fetched", *[""] * (len(SEAT_HEAD) - 4))
    sizes = (found.total_mib, found.weights_mib, found.runtime_mib, found.cache_mib)
    limits = (found.session_len, found.max_batch_size, found.prefill_tokens)
    return (str(number), seat.served_name, place, *map(str, (*sizes, *limits)))


def report(placement: Placement) -> dict[str, object]:
    """The placement as JSON: the engine, and for each worker what it is told and the fit of its engine."""
    fits = [asdict(seat.fit) | {"total_mib": seat.fit.total_mib} if seat.fit else None for seat in placement.seats]
    told = [asdict(seat.assignment) | {"fit": fit} for seat, fit in zip(placement.seats, fits, strict=True)]
    return {"engine": placement.choice.engine, "workers": told}


def show(settings: Settings, here: Resources, asked_mib: list[int]) -> None:
    """Print the models, then what fits each card. Raises ConfigurationError, after all, for one with room for none."""
    engine = choose_engine(settings.engine, here.gpus).engine
    print(f"engine {engine}; models in {settings.models_dir}\n")
    rows = [row(model, settings.hd_num, state(model, settings, engine, here.host_mib)) for model in catalogue.MODELS]
    print(table([HEAD, *rows, demo_row()]))
    print("\nA picture and the session length are in tokens, KV cache in bytes a token at 16 bits. Good for:")
    for model in catalogue.MODELS:
        print(f"  {model.name:<8} {model.purpose}")
    gpus = here.gpus if engine == TURBOMIND else []
    show_cards(cards(asked_mib, gpus), Wanted.of(settings))
    if settings.tp != "1":
        pairs = together([Gpu(str(number), "", mib, mib) for number, mib in enumerate(asked_mib)] or gpus, PAIR)
        show_pairs({f"GPUs {pair.device} together": pair.free_mib for pair in pairs}, Wanted.of(settings))


def cards(asked_mib: list[int], gpus: list[Gpu]) -> dict[str, int]:
    """{a card in words: free MiB}: those asked about, else those that are here."""
    if asked_mib:
        return {f"a GPU with {mib} MiB free": mib for mib in asked_mib}
    return {
        f"GPU {gpu.device} ({gpu.name}) with {gpu.free_mib} of {gpu.total_mib} MiB free": gpu.free_mib for gpu in gpus
    }


def show_cards(cards: dict[str, int], wanted: Wanted) -> None:
    """A table for each card. Raises ConfigurationError, after all, where one has room for no model."""
    needed = {model.name: least_mib(model, wanted) for model in catalogue.MODELS}
    too_small = []
    for card, free_mib in cards.items():
        allowed_mib = wanted.gpu_memory_mib or free_mib
        limit = f", of which LINGBI_GPU_MEMORY_MIB allows {allowed_mib}" if allowed_mib < free_mib else ""
        print(f"\n{card}{limit}:")
        print(table([FIT_HEAD, *(fit_row(model, free_mib, wanted) for model in catalogue.MODELS)]))
        if min(needed.values()) > min(free_mib, allowed_mib):
            too_small.append(card + limit)
    if too_small:
        needs = ", ".join(f"{name} needs {mib} MiB" for name, mib in needed.items())
        raise ConfigurationError(f"no model fits {'; '.join(too_small)}: {needs}")


def show_pairs(pairs: dict[str, int], wanted: Wanted) -> None:
    """A table for each two cards that may hold one copy together; what the first one holds, which is the fuller one."""
    for pair, free_mib in pairs.items():
        print(f"\n{pair}, MiB of the first:")
        print(table([FIT_HEAD, *(fit_row(model, free_mib, wanted, PAIR) for model in catalogue.MODELS)]))


def row(model: catalogue.Model, hd_num: int, state: str) -> tuple[str, ...]:
    """One model's facts, and whether it is here and fits; hd_num: most tiles of a picture."""
    geometry = model.geometry
    return (
        model.name,
        model.hub_id,
        f"{model.weight_bytes / 1e9:.1f} GB",
        f"{geometry.layers}x{geometry.hidden_size}",
        str(geometry.kv_bytes),
        model.image_range(hd_num),
        str(model.session_len),
        model.template,
        f"{model.card_gb} GB",
        state,
    )


def fit_row(model: catalogue.Model, free_mib: int, wanted: Wanted, each: int = 1) -> tuple[str, ...]:
    """A model's settings on a card, or on so many together, in MiB and tokens, or what it needs."""
    if not can_share(model, each):
        return (model.name, "one card only", *[""] * (len(FIT_HEAD) - 2))
    share = share_of(model, each)
    try:
        found = fit(share, free_mib, wanted)
    except ConfigurationError:
        return (model.name, f"needs {least_mib(share, wanted)} MiB", *[""] * (len(FIT_HEAD) - 2))
    cache = f"{found.cache_mib}, {BITS[found.quant_policy]} bits"
    sizes = (found.total_mib, found.weights_mib, found.runtime_mib, cache)
    limits = (found.cache_tokens, found.session_len, found.max_batch_size, found.prefill_tokens)
    return (model.name, *map(str, (*sizes, *limits)))


def demo_row() -> tuple[str, ...]:
    folder = inspect(DEMO_FOLDER)
    layers, width = folder.config["num_hidden_layers"], folder.config["hidden_size"]
    size = f"{folder.weight_bytes / 1e6:.1f} MB"
    shape = f"{layers}x{width}"
    return (
        "demo",
        "comes with lingbi",
        size,
        shape,
        "",
        "36",
        str(folder.session_len),
        folder.template,
        "none",
        "fits",
    )


def state(model: catalogue.Model, settings: Settings, engine: str, host_mib: int) -> str:
    """Whether a model is here; on the CPU also whether it fits: a GPU has a table of its own."""
    here = "present" if find_model(model.name, settings.models_dir).is_present else "to be fetched"
    if engine == TURBOMIND:
        return here
    needed = needed_mib(model, settings.hd_num)
    return f"{here}, {'fits' if needed <= host_mib else f'needs {needed} MiB'}"


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
