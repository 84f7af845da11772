"""scripts/plan: the models, what they need, and what is here for them."""

import argparse
import sys

from lingbi import catalogue
from lingbi.engines.choice import TURBOMIND, choose_engine, find_gpus
from lingbi.errors import LingbiError
from lingbi.memory import available_mib, needed_mib
from lingbi.model_folder import inspect
from lingbi.models import DEMO_FOLDER, find_model
from lingbi.settings import Settings, load_settings

HEAD = ("name", "ModelScope id", "weights", "geometry", "KV cache", "picture", "session", "template", "card", "here")


def main(arguments=None) -> int:
    """Exit status: 0, or 2 for a setting that cannot be used."""
    argparse.ArgumentParser(prog="scripts/plan", description=__doc__.split(": ")[1].capitalize()).parse_args(arguments)
    try:
        settings = load_settings()
        gpus = find_gpus()
        engine = choose_engine(settings.engine, gpus).engine
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    memory_mib = gpus[0].total_mib if engine == TURBOMIND else available_mib()
    where = f"{gpus[0].name}, {len(gpus)} of them" if engine == TURBOMIND else "CPU engine"
    print(f"engine {engine} ({where}), {memory_mib} MiB; models in {settings.models_dir}\n")
    rows = [HEAD, *(row(model, settings, engine, memory_mib) for model in catalogue.MODELS), demo_row()]
    print(table(rows))
    print("\nA picture and the session length are in tokens, KV cache in bytes a token at 16 bits. Good for:")
    for model in catalogue.MODELS:
        print(f"  {model.name:<8} {model.purpose}")
    return 0


def row(model: catalogue.Model, settings: Settings, engine: str, memory_mib: int) -> tuple:
    """One model's facts, and whether it is here and fits."""
    geometry = model.geometry
    return (
        model.name,
        model.hub_id,
        f"{model.weight_bytes / 1e9:.1f} GB",
        f"{geometry.layers}x{geometry.hidden_size}",
        str(geometry.kv_bytes),
        model.picture_range,
        str(model.session_len),
        model.template,
        f"{model.card_gb} GB",
        state(model, settings, engine, memory_mib),
    )


def demo_row() -> tuple:
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


def state(model: catalogue.Model, settings: Settings, engine: str, memory_mib: int) -> str:
    """Whether a model is here, and whether its weights fit the memory there is."""
    here = "present" if find_model(model.name, settings.models_dir).is_present else "to be fetched"
    needed = needed_mib(model, engine)
    return f"{here}, {'fits' if needed <= memory_mib else f'needs {needed} MiB'}"


def table(rows: list) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
