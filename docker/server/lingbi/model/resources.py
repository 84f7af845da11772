"""What a machine offers to models: its GPUs and its host memory."""

from dataclasses import dataclass

from lingbi.model.gpus import Gpu, emptied, find_gpus
from lingbi.model.host_memory import available_mib, whole_mib


@dataclass(frozen=True)
class Resources:
    """gpus: those that this process may use; host_mib: MiB of host memory for new processes."""

    gpus: list[Gpu]
    host_mib: int


def find_resources() -> Resources:
    """What is available now, next to everything that is running."""
    return Resources(find_gpus(), available_mib())


def unoccupied(found: Resources) -> Resources:
    """The same machine with nothing else running on it."""
    return Resources(emptied(found.gpus), whole_mib())
