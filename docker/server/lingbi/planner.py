"""What serves on a machine, decided in one place: which engine, which model, on how many workers, and whether it fits.

The steps stand in the order in which they refuse: choose the engine, choose the model, may it be fetched, inspect it,
does it fit. Nothing here looks at a GPU or at memory: callers hand over what they found, or what they want to suppose.
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

    model: as identify tells it; fits: each worker's, of its GPU (Fit) or of its share of the host's memory (CpuFit), none
    for a model that nothing is known of yet.
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
    """The engine and the model for these GPUs, as far as that is told without looking into the model's folder.

    Only auto looks into folders: it takes the first model that fits. Raises ConfigurationError.
    """
    choice = choose_engine(settings.engine, gpus)
    return choice, find_weights(settings, partial(fault_on, settings=settings, engine=choice.engine, gpus=gpus))


def find_weights(settings: Settings, fault_of: FaultOf = takes_any) -> Found:
    """The model that the settings name, which is there or may be fetched; fault_of: as find_model's.

    Raises ConfigurationError.
    """
    found = find_model(settings.model, settings.models_dir, fault_of)
    check_may_fetch(found, settings)
    return found


def fault_on(found: Found, settings: Settings, engine: str, gpus: list[Gpu]) -> str | None:
    """Why auto leaves a model alone that is there, or None. Raises ConfigurationError where it is not whole."""
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
    """What was chosen, on this machine. Raises ConfigurationError for a bad folder, and for what does not fit."""
    model = identify(found)
    workers = count_workers(settings, choice.engine, resources.gpus)
    check_workers(workers, choice.engine, resources.gpus)
    fits: list[Fit | CpuFit] = []
    if model:
        fits = check_memory(model, choice.engine, resources.gpus, workers, resources.host_mib, settings)
    return Placement(choice, found, model, workers, tuple(fits))


@dataclass(frozen=True)
class FolderPlacement:
    """What serves a model folder that is given by its path: the engine, and the fit of its only worker."""

    choice: Choice
    folder: ModelFolder
    fit: Fit | CpuFit


def place_folder(path: str | Path, settings: Settings, resources: Resources) -> FolderPlacement:
    """The decision where neither a model is to be chosen nor weights to be fetched.

    Raises ConfigurationError for a bad folder, and for what does not fit.
    """
    folder = inspect(path)
    choice = choose_engine(settings.engine, resources.gpus)
    (fit,) = check_memory(folder, choice.engine, resources.gpus, 1, resources.host_mib, settings)
    return FolderPlacement(choice, folder, fit)


def identify(found: Found) -> ModelFolder | catalogue.Model | None:
    """The model's folder, checked; of one that is to be fetched the catalogue's facts, or None where it has none.

    Raises ConfigurationError for a folder that cannot be served.
    """
    return catalogue.find(found.hub_id or "") if found.is_to_come else inspect(found.path)


def count_workers(settings: Settings, engine: str, gpus: list[Gpu]) -> int:
    """How many workers a start has: what the settings say, else one a GPU, or one on the CPU."""
    return settings.workers or (len(gpus) if engine == TURBOMIND else 1)


def check_workers(workers: int, engine: str, gpus: list[Gpu]) -> None:
    """Raise ConfigurationError for more workers than there are GPUs for them."""
    if engine == TURBOMIND and workers > len(gpus):
        raise ConfigurationError(f"LINGBI_WORKERS={workers}, and {len(gpus)} GPU(s) are here; one worker takes one GPU")
