"""Gives models that are loaded on demand their seats: those of one card take turns, so each must fit there, not all."""

from collections.abc import Sequence

from lingbi.model.gpus import CPU, Gpu
from lingbi.model.host_memory import fit_on_cpu
from lingbi.model.resources import Resources
from lingbi.placement.seats import Seat
from lingbi.placement.several import Identified, check_copies, seat_on
from lingbi.settings import Settings


def seats_in_turn(
    models: Sequence[Identified], engine: str, settings: Settings, resources: Resources
) -> tuple[Seat, ...]:
    """A seat for each worker, in the order of the models, on one card after the other. Of its card a model gets what one of
    LINGBI_MODELS_AWAKE gets. Raises ConfigurationError for one that does not fit into that."""
    workers = [item for item in models for _ in range(item.workers)]
    if engine == CPU:
        share = resources.host_mib // settings.models_awake
        return tuple(
            Seat(item.found, item.model, None, share, fit_on_cpu(item.model, share, settings)) for item in workers
        )
    check_copies(workers, resources.gpus)
    cards = [resources.gpus[number % len(resources.gpus)] for number in range(len(workers))]
    return tuple(
        seat_on(item, gpu, _share_mib(gpu, settings), settings) for item, gpu in zip(workers, cards, strict=True)
    )


def _share_mib(gpu: Gpu, settings: Settings) -> int | None:
    """The most that one model takes of a card; None: all that is free, or what the settings allow."""
    if settings.models_awake == 1:
        return None
    return min(gpu.free_mib, settings.gpu_memory_mib or gpu.free_mib) // settings.models_awake
