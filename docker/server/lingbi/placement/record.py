"""The file that tells each worker what it serves: written by a start, read by the workers."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.files import write_text
from lingbi.placement.seats import Assignment, Seat


def file_in(state_dir: Path) -> Path:
    """Where it is in a state folder: JSON, {"workers": [an Assignment, …]}, by the workers' numbers."""
    return state_dir / "run" / "placement.json"


def write(file: Path, seats: Iterable[Seat]) -> None:
    write_text(file, json.dumps({"workers": [asdict(seat.assignment) for seat in seats]}, indent=1) + "\n")


def read(file: Path) -> tuple[Assignment, ...]:
    """The assignments of all workers, by their numbers. Raises ConfigurationError for a file that is no such list."""
    try:
        return tuple(Assignment(**item) for item in json.loads(file.read_text(encoding="utf-8"))["workers"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(
            f"{file} does not tell what each worker serves ({error!r}); start lingbi anew"
        ) from None


def assignment(file: Path, worker: int) -> Assignment:
    """What the worker of this number serves. Raises ConfigurationError."""
    found = read(file)
    if worker >= len(found):
        raise ConfigurationError(f"{file} lists {len(found)} worker(s), and this is worker {worker}; start lingbi anew")
    return found[worker]
