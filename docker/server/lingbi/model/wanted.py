"""Which models a machine is to serve, as LINGBI_MODEL names them: `vl-7b`, or several as in `vl-7b*3,4khd-7b`."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue

AUTO = "auto"
MOST_WORKERS = 64  # on one machine
COUNTED = re.compile(r"(?P<name>[^*]*[^*\s])\s*\*\s*(?P<workers>[0-9]{1,4})")


class Joined(argparse.Action):
    """An option --model that may be given several times: its values, with commas as in the setting."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        former = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{former},{values}" if former else values)


@dataclass(frozen=True)
class WantedModel:
    """A model that is to be served. name: as for resolve.find_model; workers: how many of it, None where nobody said."""

    name: str
    workers: int | None = None

    def __str__(self) -> str:
        """As the setting spells it."""
        return self.name if self.workers is None else f"{self.name}*{self.workers}"


def is_folder(name: str) -> bool:
    """Whether a folder has this name, which may hold any character."""
    return bool(name) and Path(name).expanduser().is_dir()


def parse(text: str, is_folder: Callable[[str], bool] = is_folder) -> tuple[WantedModel, ...]:
    """The models that a value of LINGBI_MODEL names, in its order; at least one.

    A value that is a folder's name names that folder, whatever characters are in it. Raises ConfigurationError.
    """
    if is_folder(text):
        return (WantedModel(text),)
    models = tuple(_model(part.strip(), text, is_folder) for part in text.split(","))
    if len(models) > 1:
        _check_several(models, text)
    return models


def spelled(models: Sequence[WantedModel]) -> str:
    """The value of LINGBI_MODEL that names these models."""
    return ",".join(map(str, models))


def only(text: str, asker: str) -> str:
    """The one model that a value names, for what works with one. asker: its name, for people. Raises ConfigurationError."""
    models = parse(text)
    if len(models) > 1:
        raise ConfigurationError(
            f"LINGBI_MODEL={text!r} names several models, and {asker} takes one; give it in --model"
        )
    return models[0].name


def _model(part: str, text: str, is_folder: Callable[[str], bool]) -> WantedModel:
    if "*" not in part or is_folder(part):
        return WantedModel(part)
    counted = COUNTED.fullmatch(part)
    if counted is None or not 1 <= int(counted["workers"]) <= MOST_WORKERS:
        raise ConfigurationError(
            f"LINGBI_MODEL={text!r}: {part!r} is not NAME*WORKERS with 1 to {MOST_WORKERS} workers; write it as in vl-7b*3"
        )
    return WantedModel(counted["name"], int(counted["workers"]))


def _check_several(models: Sequence[WantedModel], text: str) -> None:
    """Raise ConfigurationError for several models that cannot be served together, whatever the machine is."""
    where = f"LINGBI_MODEL={text!r}"
    seen: dict[str, WantedModel] = {}
    for model in models:
        if not model.name:
            raise ConfigurationError(f"{where}: a name is missing beside a comma; write it as in vl-7b,4khd-7b")
        if model.name == AUTO:
            raise ConfigurationError(f"{where}: auto chooses one model for the machine; name every model instead")
        former = seen.setdefault(canonical(model.name), model)
        if former is not model:
            both = replace(former, workers=(former.workers or 1) + (model.workers or 1))
            other = "" if former.name == model.name else f", also as {model.name}"
            raise ConfigurationError(
                f"{where}: {former.name} is there twice{other}; write {both} for more workers of it"
            )


def canonical(name: str) -> str:
    """One spelling of a model's name: the published models have three, and the demo two."""
    if name == catalogue.DEMO_SERVED_NAME:
        return catalogue.DEMO
    model = catalogue.find(name)
    return model.name if model else name
