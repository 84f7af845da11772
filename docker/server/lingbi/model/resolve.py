"""Resolves the name of a model to its folder, or to where it can be fetched from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue

DEMO_FOLDER = Path(__file__).parents[2] / "models" / "demo"


DEMO_REMEDY = "--model demo tries lingbi out with coloured shapes"


@dataclass(frozen=True)
class Found:
    """A model's folder, how it was chosen (for people), and its ModelScope id if it can be fetched there.

    The folder of a model that can be fetched need not exist yet.
    """

    path: Path
    reason: str
    hub_id: str | None = None

    @property
    def is_present(self) -> bool:
        return is_present(self.path)

    @property
    def is_to_come(self) -> bool:
        """Whether the model is not here yet and can be fetched from the hub."""
        return self.hub_id is not None and not self.is_present

    @property
    def served_name(self) -> str:
        """The model's id in the API, known before its folder exists: the same as that of the folder then."""
        model = catalogue.find(self.hub_id or "")
        return model.served_name if model else self.path.name


FaultOf = Callable[[Found], str | None]  # why auto must not choose a model that is present, or None


def is_present(folder: Path) -> bool:
    """Whether a folder holds a model's files; a fetch puts them there only when all have arrived."""
    return (folder / "config.json").exists()


def takes_any(found: Found) -> None:
    """For find_model: auto may choose any model that is present."""


def find_model(name: str, models_dir: Path, fault_of: FaultOf = takes_any, may_fetch: bool = False) -> Found:
    """Find a model: a path, a catalogue name or ModelScope id under models_dir, demo, or auto.

    fault_of: why auto must not choose a model, or None; may_fetch: whether auto takes a published model that is to be
    fetched, never the demo. Raises ConfigurationError for a name that is none of these, and where auto may take none.
    """
    if name == "auto":
        return _best(models_dir, fault_of, may_fetch)
    if name in (catalogue.DEMO, catalogue.DEMO_SERVED_NAME):
        return Found(DEMO_FOLDER, "the demo model that comes with lingbi")
    if name.startswith(("/", ".", "~")) or Path(name).is_dir():
        return Found(Path(name).expanduser(), "the folder given")
    model = catalogue.find(name)
    if model:
        return _published(model, models_dir)
    if catalogue.HUB_ID.fullmatch(name):
        return _in(models_dir / name.replace("/", "--"), name, name, models_dir)
    raise ConfigurationError(
        f"model {name!r} is neither a folder nor one of: {', '.join(catalogue.names())}, "
        "nor a ModelScope id (owner/name)"
    )


def _published(model: catalogue.Model, models_dir: Path) -> Found:
    own = models_dir / model.served_name
    folder = next((path for path in (own, models_dir / model.name) if is_present(path)), own)
    return _in(folder, model.hub_id, model.name, models_dir)


def _in(folder: Path, hub_id: str, name: str, models_dir: Path) -> Found:
    if is_present(folder):
        return Found(folder, f"{name} found in {models_dir}", hub_id)
    model = catalogue.find(hub_id)
    size = f", {model.weight_bytes / 1e9:.1f} GB" if model else ""
    return Found(folder, f"{name}{size}, to be fetched from ModelScope ({hub_id})", hub_id)


def _best(models_dir: Path, fault_of: FaultOf, may_fetch: bool) -> Found:
    """The first model of the catalogue that is here and has no fault, else the first that may be fetched."""
    every = [(model.name, _published(model, models_dir)) for model in catalogue.MODELS]
    choices = [(name, found) for name, found in every if found.is_present or may_fetch]
    passed: list[str] = []
    for name, found in sorted(choices, key=lambda choice: choice[1].is_to_come):
        fault = fault_of(found)
        if fault is None:
            return replace(found, reason="; ".join([found.reason, *passed]))
        passed.append(f"{name} {fault}")
    if may_fetch:
        raise ConfigurationError(f"no published model can be served here: {'; '.join(passed)}; {DEMO_REMEDY}")
    why = "; ".join(passed) or f"{models_dir} holds none of the published models"
    return Found(DEMO_FOLDER, f"the demo model, as {why}")
