"""Decides what a machine serves: which engine, which model, how many workers, and whether it fits.

The steps run in the order in which they can refuse: choose the engine, choose the model, check that it may be fetched,
inspect it, check that it fits. Nothing here queries GPUs or memory: callers pass what they found or want to assume.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.folder import ModelFolder, inspect
from lingbi.model.gpus import CPU, TURBOMIND, Choice, Gpu, choose_engine
from lingbi.model.host_memory import CpuFit, check_memory
from lingbi.model.resolve import FaultOf, Found, find_model, takes_any
from lingbi.model.resources import Resources
from lingbi.model.sizing import Fit, fit_on
from lingbi.settings import Settings
from lingbi.weights.start import check_may_fetch


@dataclass(frozen=True)
class Placement:
    """Which engine serves which model on a machine, and with how many workers.

    model: as returned by identify; fits: one for each worker, on its GPU (Fit) or in its share of host memory (CpuFit);
    empty if nothing is known about the model yet.
    """

    choice: Choice
    found: Found
    model: ModelFolder | catalogue.Model | None
    workers: int
    fits: tuple[Fit | CpuFit, ...]

    @property
    def served_name(self) -> str:
        """The model's id in the API."""
        return (self.model or self.found).served_name


def plan(settings: Settings, resources: Resources) -> Placement:
    """The whole decision. Raises ConfigurationError at the first step that refuses."""
    choice, found = choose(settings, resources.gpus)
    return place(choice, found, settings, resources)


def choose(settings: Settings, gpus: list[Gpu]) -> tuple[Choice, Found]:
    """The engine and the model for these GPUs, decided without reading the model's folder.

    Only auto reads folders: it takes the first model that fits. Raises ConfigurationError.
    """
    choice = choose_engine(settings.engine, gpus)
    return choice, find_weights(settings, partial(fault_on, settings=settings, engine=choice.engine, gpus=gpus))


def find_weights(settings: Settings, fault_of: FaultOf = takes_any) -> Found:
    """The model that the settings name, which is present or may be fetched; fault_of: as for find_model.

    Raises ConfigurationError.
    """
    found = find_model(settings.model, settings.models_dir, fault_of)
    check_may_fetch(found, settings)
    return found


def fault_on(found: Found, settings: Settings, engine: str, gpus: list[Gpu]) -> str | None:
    """Why auto must not choose a model that is present, or None. Raises ConfigurationError if it is incomplete."""
    if engine == CPU:
        return "is slow on the CPU and served there only when it is named"
    folder = inspect(found.path)
    try:
        for gpu in gpus[: count_workers(settings, engine, gpus)]:
            fit_on(folder, gpu, settings)
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
    fits: list[Fit | CpuFit] = []
    if model:
        fits = check_memory(model, choice.engine, resources.gpus, workers, resources.host_mib, settings)
    return Placement(choice, found, model, workers, tuple(fits))


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
    (fit,) = check_memory(folder, choice.engine, resources.gpus, 1, resources.host_mib, settings)
    return FolderPlacement(choice, folder, fit)


def identify(found: Found) -> ModelFolder | catalogue.Model | None:
    """The checked folder of a model; before it is fetched, its entry in the catalogue, or None if there is no entry.

    Raises ConfigurationError for a folder that cannot be served.
    """
    return catalogue.find(found.hub_id or "") if found.is_to_come else inspect(found.path)


def count_workers(settings: Settings, engine: str, gpus: list[Gpu]) -> int:
    """Number of workers: as set, else one per GPU, or one on the CPU."""
    return settings.workers or (len(gpus) if engine == TURBOMIND else 1)


def check_workers(workers: int, engine: str, gpus: list[Gpu]) -> None:
    """Raise ConfigurationError if there are more workers than GPUs."""
    if engine == TURBOMIND and workers > len(gpus):
        raise ConfigurationError(f"LINGBI_WORKERS={workers}, and {len(gpus)} GPU(s) are here; one worker takes one GPU")
