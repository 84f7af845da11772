"""Decides what a machine serves: which engine, which models, how many workers, on which cards, and whether they fit.

The steps run in the order in which they can refuse: choose the engine, choose the models, check that they may be fetched,
inspect them, check that they fit. Nothing here queries GPUs or memory: callers pass what they found or want to assume.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue, wanted
from lingbi.model.catalogue import ModelFacts
from lingbi.model.folder import ModelFolder, inspect
from lingbi.model.gpus import CPU, TURBOMIND, Choice, Gpu, choose_engine, emptied, together
from lingbi.model.host_memory import CpuFit, check_memory
from lingbi.model.resolve import FaultOf, Found, find_model, takes_any
from lingbi.model.resources import Resources
from lingbi.model.sizing import Fit, fit_on
from lingbi.model.wanted import WantedModel
from lingbi.placement import record
from lingbi.placement.in_turn import seats_in_turn
from lingbi.placement.seats import Assignment, Placement, Seat, source_of
from lingbi.placement.several import check_names, identified, seats_of_several
from lingbi.placement.together import AUTO, PAIR, check_alone, check_together, may_share
from lingbi.settings import Settings
from lingbi.weights.start import check_locks, check_may_fetch


def plan(settings: Settings, resources: Resources) -> Placement:
    """The whole decision. Raises ConfigurationError at the first step that refuses."""
    models = wanted_models(settings)
    if len(models) == 1:
        choice, only, gpus = choose_places(settings, resources.gpus)
        return place(choice, only, settings, Resources(gpus, resources.host_mib))
    check_alone(settings)
    choice = choose_engine(settings.engine, resources.gpus)
    found = [(model, _find(settings, model.name, choice.engine)) for model in models]
    return Placement(choice, place_several(found, choice.engine, settings, resources))


def wanted_models(settings: Settings) -> tuple[WantedModel, ...]:
    """The models that the settings name. Raises ConfigurationError where LINGBI_WORKERS contradicts them."""
    models = wanted.parse(settings.model)
    counted = [model for model in models if model.workers not in (None, settings.workers)]
    if settings.workers and (len(models) > 1 or counted):
        raise ConfigurationError(
            f"LINGBI_WORKERS={settings.workers} with LINGBI_MODEL={settings.model!r}: the number of workers stands with "
            "each model, as in vl-7b*3,4khd-7b; leave LINGBI_WORKERS away"
        )
    check_locks(len(models), settings)
    return models


def choose(settings: Settings, gpus: list[Gpu]) -> tuple[Choice, Found]:
    """The engine and the one model for these GPUs, decided without reading the model's folder.

    Only auto reads folders: it takes the first model that fits, on a GPU also one that is to be fetched. Raises
    ConfigurationError.
    """
    choice, found, _ = choose_places(settings, gpus)
    return choice, found


def choose_places(settings: Settings, gpus: list[Gpu]) -> tuple[Choice, Found, list[Gpu]]:
    """Like choose, with the GPUs for its workers: those that hold one copy together (LINGBI_TP) count as one."""
    choice = choose_engine(settings.engine, gpus)
    judged = together(gpus, PAIR) if settings.tp == str(PAIR) else gpus
    fault_of = partial(fault_on, settings=settings, engine=choice.engine, gpus=judged)
    check_together(settings, choice.engine, gpus)
    found = _find(settings, wanted.only(settings.model, "this"), choice.engine, fault_of)
    places = in_places(gpus, settings, choice.engine, partial(fault_on, found, settings, choice.engine))
    return choice, found, places


def in_places(
    gpus: list[Gpu], settings: Settings, engine: str, fault_of: Callable[[list[Gpu]], str | None]
) -> list[Gpu]:
    """The GPUs, those that hold one copy together as one. fault_of: why a model cannot be on these. Raises ConfigurationError."""
    check_together(settings, engine, gpus)
    pairs = together(gpus, PAIR)
    if settings.tp == str(PAIR):
        return pairs
    is_better = settings.tp == AUTO and engine == TURBOMIND and may_share(settings, gpus)
    return pairs if is_better and fault_of(gpus) and not fault_of(pairs) else gpus


def assigned(settings: Settings, gpus: list[Gpu]) -> tuple[Choice, Found, Assignment]:
    """What the worker of these settings serves, by which engine, and where: as the start wrote it down, or as one model's
    worker where nothing is written. Raises ConfigurationError.

    Cards count with their whole memory, because what occupies one now may be a worker that is ending.
    """
    whole = emptied(gpus)
    if settings.placement_file:
        told = record.assignment(settings.placement_file, settings.worker)
        choice = choose_engine(settings.engine, whole)
        return choice, _find(settings, told.source, choice.engine), told
    choice, found, places = choose_places(settings, whole)
    device = places[settings.worker % len(places)].device if choice.engine == TURBOMIND else None
    return choice, found, Assignment(found.served_name, source_of(found), device, None)


def find_weights(settings: Settings, gpus: list[Gpu]) -> list[Found]:
    """The models whose weights a server will need that is started after this.

    What is here already is weighed on empty GPUs: a server that still runs holds their memory. A named model is not
    weighed. Raises ConfigurationError.
    """
    engine = choose_engine(settings.engine, gpus).engine
    gpus = together(gpus, PAIR) if settings.tp == str(PAIR) else gpus

    def fault_of(found: Found) -> str | None:
        return fault_on(found, settings, engine, emptied(gpus) if found.is_present else gpus)

    return [_find(settings, model.name, engine, fault_of) for model in wanted_models(settings)]


def _find(settings: Settings, name: str, engine: str, fault_of: FaultOf = takes_any) -> Found:
    """The model of this name, which is present or may be fetched. Raises ConfigurationError."""
    found = find_model(name, settings.models_dir, fault_of, may_fetch=engine == TURBOMIND)
    check_may_fetch(found, settings)
    return found


def fault_on(found: Found, settings: Settings, engine: str, gpus: list[Gpu]) -> str | None:
    """Why auto must not choose a model, or None. Raises ConfigurationError if one that is present is incomplete."""
    if engine == CPU:
        return "is slow on the CPU and served there only when it is named"
    model = identify(found)
    if model is None:
        return "is no published model"
    return fault_in(model, settings, gpus[: count_workers(settings, engine, gpus)])


def fault_in(model: ModelFacts, settings: Settings, gpus: list[Gpu]) -> str | None:
    """Why a model does not fit on each of these, or None."""
    try:
        for gpu in gpus:
            fit_on(model, gpu, settings)
    except ConfigurationError as error:
        return f"does not fit ({error})"
    return None


def place(choice: Choice, found: Found, settings: Settings, resources: Resources) -> Placement:
    """The placement of this choice on this machine.

    Raises ConfigurationError for a bad folder, and if the model does not fit.
    """
    model = identify(found)
    workers = count_workers(settings, choice.engine, resources.gpus)
    check_workers(workers, choice.engine, resources.gpus)
    fits: list[Fit | CpuFit | None] = [None] * workers
    if model:
        fits = [*check_memory(model, choice.engine, resources.gpus, workers, resources.host_mib, settings)]
    devices = [gpu.device for gpu in resources.gpus] if choice.engine == TURBOMIND else [None] * workers
    return Placement(
        choice, tuple(Seat(found, model, device, None, fit) for device, fit in zip(devices, fits, strict=False))
    )


def place_several(
    found: list[tuple[WantedModel, Found]], engine: str, settings: Settings, resources: Resources
) -> tuple[Seat, ...]:
    """The seats of several models' workers. Raises ConfigurationError for a bad folder, for two models of one name, and
    if they do not fit together or, on demand, one after the other."""
    models = [identified(model, item, identify(item)) for model, item in found]
    check_names(models)
    return (seats_in_turn if settings.on_demand else seats_of_several)(models, engine, settings, resources)


@dataclass(frozen=True)
class FolderPlacement:
    """How a model folder given by its path is served: the engine, and the fit of its only worker."""

    choice: Choice
    folder: ModelFolder
    fit: Fit | CpuFit


def place_folder(path: str | Path, settings: Settings, resources: Resources) -> FolderPlacement:
    """The decision for a given folder: no model is chosen and no weights are fetched.

    Raises ConfigurationError for a bad folder, and if the model does not fit.
    """
    folder = inspect(path)
    choice = choose_engine(settings.engine, resources.gpus)
    places = in_places(resources.gpus, settings, choice.engine, partial(fault_in, folder, settings))
    (fit,) = check_memory(folder, choice.engine, places, 1, resources.host_mib, settings)
    return FolderPlacement(choice, folder, fit)


def identify(found: Found) -> ModelFolder | catalogue.Model | None:
    """The checked folder of a model; before it is fetched, its entry in the catalogue, or None if there is no entry.

    Raises ConfigurationError for a folder that cannot be served.
    """
    return catalogue.find(found.hub_id or "") if found.is_to_come else inspect(found.path)


def count_workers(settings: Settings, engine: str, gpus: list[Gpu]) -> int:
    """Number of one model's workers: as set, else one per GPU, or one on the CPU."""
    (model,) = wanted_models(settings)
    return model.workers or settings.workers or (len(gpus) if engine == TURBOMIND else 1)


def check_workers(workers: int, engine: str, gpus: list[Gpu]) -> None:
    """Raise ConfigurationError if there are more workers than GPUs."""
    if engine == TURBOMIND and workers > len(gpus):
        each = gpus[0].cards
        here = f"{len(gpus) * each} GPU(s) are here; one worker takes {each if each > 1 else 'one GPU'}"
        raise ConfigurationError(f"LINGBI_WORKERS={workers}, and {here}")
