"""Turns what people name a model by into a model folder."""

from dataclasses import dataclass
from pathlib import Path

from lingbi import catalogue
from lingbi.errors import ConfigurationError

DEMO_FOLDER = Path(__file__).parents[1] / "models" / "demo"


@dataclass(frozen=True)
class Found:
    """A model folder and how it was chosen, for people."""

    path: Path
    reason: str


def find_model(name: str, models_dir: Path) -> Found:
    """Find the folder of a model: a path, a catalogue name under models_dir, demo, or auto.

    Raises ConfigurationError for a name that is neither.
    """
    if name == "auto":
        return _best_present(models_dir)
    if name == catalogue.DEMO:
        return Found(DEMO_FOLDER, "the demo model that comes with lingbi")
    model = catalogue.find(name)
    if model:
        path = _present(model, models_dir)
        if path:
            return Found(path, f"{name} found in {models_dir}")
        raise ConfigurationError(
            f"model {name}: no folder {models_dir / model.served_name}; put the model there "
            f"(ModelScope: {model.hub_id}), or give its folder's path"
        )
    if not Path(name).exists() and "/" not in name:
        names = ", ".join([catalogue.DEMO, *(model.name for model in catalogue.MODELS)])
        raise ConfigurationError(f"model {name!r} is neither a folder nor one of: {names}")
    return Found(Path(name), "the folder given")


def _present(model: catalogue.Model, models_dir: Path):
    for folder in (models_dir / model.served_name, models_dir / model.name):
        if folder.is_dir():
            return folder
    return None


def _best_present(models_dir: Path) -> Found:
    for model in catalogue.MODELS:
        folder = _present(model, models_dir)
        if folder:
            return Found(folder, f"{model.name} found in {models_dir}")
    return Found(DEMO_FOLDER, f"the demo model, as {models_dir} holds none of the published models")
