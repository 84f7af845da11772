"""Gives several models their seats on one machine, or says with numbers why there is no room for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.catalogue import ModelFacts
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import CPU, Gpu
from lingbi.model.host_memory import fit_on_cpu, least_on_cpu
from lingbi.model.resolve import Found
from lingbi.model.resources import Resources
from lingbi.model.sizing import Wanted, fit, fit_on, least_mib
from lingbi.model.wanted import WantedModel
from lingbi.placement.seats import Seat
from lingbi.placement.sharing import Need, only_once, put_on_cards, shares_mib, would_fit
from lingbi.settings import Settings

UNUSABLE = frozenset(" \t\n,=;#\"'\\{}$")  # in the name of one model among several, which nginx's lists hold


@dataclass(frozen=True)
class Identified:
    """One of several models: as it was named, found, and as planner.identify knows it."""

    wanted: WantedModel
    found: Found
    model: ModelFolder | catalogue.Model

    @property
    def served_name(self) -> str:
        """The model's name in the API."""
        return self.model.served_name

    @property
    def workers(self) -> int:
        return self.wanted.workers or 1


def identified(wanted: WantedModel, found: Found, model: ModelFolder | catalogue.Model | None) -> Identified:
    """Raises ConfigurationError for a model of which nothing is known before it is fetched."""
    if model is None:
        raise ConfigurationError(
            f"{wanted.name} is not here yet and no published model, so the memory that it needs beside others is not "
            f"known; fetch it first: scripts/fetch --model {wanted.name}"
        )
    return Identified(wanted, found, model)


def check_names(models: Sequence[Identified]) -> None:
    """Raise ConfigurationError where requests could not tell two models apart by name, or nginx could not hold a name."""
    seen: dict[str, Identified] = {}
    for item in models:
        name = item.served_name
        former = seen.setdefault(name, item)
        if former is not item:
            raise ConfigurationError(
                f"{former.wanted.name} ({former.found.path}) and {item.wanted.name} ({item.found.path}) are both served as "
                f"{name!r}, and requests tell models apart by name; leave one away"
            )
        if UNUSABLE & set(name) or not name.isascii():
            raise ConfigurationError(
                f"the folder {item.found.path} would be served as {name!r}, and beside other models a name has only "
                "letters, digits and signs as in internlm-xcomposer2-vl-7b; rename the folder"
            )


def seats_of_several(
    models: Sequence[Identified], engine: str, settings: Settings, resources: Resources
) -> tuple[Seat, ...]:
    """A seat for each worker, in the order of the models. Raises ConfigurationError if they do not fit together."""
    workers = [item for item in models for _ in range(item.workers)]
    if engine == CPU:
        return _in_host_memory(workers, settings, resources.host_mib)
    return _on_cards(workers, settings, resources.gpus)


def _on_cards(workers: Sequence[Identified], settings: Settings, gpus: Sequence[Gpu]) -> tuple[Seat, ...]:
    limits = Wanted.of(settings)
    needs = [_need(item, least_mib(item.model, limits), settings) for item in workers]
    rooms = [min(gpu.free_mib, limits.gpu_memory_mib or gpu.free_mib) for gpu in gpus]
    _check_each(workers, gpus, settings)
    check_copies(workers, gpus)
    chosen = put_on_cards(needs, rooms)
    if chosen is None:
        places = [f"GPU {gpu.device} ({gpu.name})" for gpu in gpus]
        raise ConfigurationError(refusal(needs, dict(zip(places, rooms, strict=True)), "free"))
    seats: dict[int, Seat] = {}
    for card in set(chosen):
        here = [worker for worker, number in enumerate(chosen) if number == card]
        shares: list[int | None] = [None]  # alone on its card: as much as one model alone would take
        if len(here) > 1:
            shares = [*shares_mib([needs[worker] for worker in here], rooms[card])]
        seats |= {
            worker: seat_on(workers[worker], gpus[card], share, settings)
            for worker, share in zip(here, shares, strict=True)
        }
    return tuple(seats[worker] for worker in range(len(workers)))


def seat_on(item: Identified, gpu: Gpu, share: int | None, settings: Settings) -> Seat:
    """A worker's seat on a card. share: the most MiB that it may take of it; None: all. Raises ConfigurationError."""
    limits = Wanted.of(settings) if share is None else replace(Wanted.of(settings), gpu_memory_mib=share)
    found = fit(item.model, gpu.free_mib, limits, f"GPU {gpu.device} ({gpu.name})")
    return Seat(item.found, item.model, gpu.device, share, found)


def _check_each(workers: Sequence[Identified], gpus: Sequence[Gpu], settings: Settings) -> None:
    """Raise ConfigurationError for a model that has no card even for itself, as for one that is served alone."""
    roomiest = max(gpus, key=lambda gpu: gpu.free_mib)
    for item in workers:
        fit_on(item.model, roomiest, settings)


def check_copies(workers: Sequence[Identified], gpus: Sequence[Gpu]) -> None:
    """Raise ConfigurationError for a model with more workers than cards."""
    for item in workers:
        if item.workers > len(gpus):
            raise ConfigurationError(
                f"{item.wanted} asks for {item.workers} workers, and {len(gpus)} GPU(s) are here; a second worker of a "
                f"model on one card would only divide its KV cache; ask for {item.wanted.name}*{len(gpus)} at most"
            )


def _in_host_memory(workers: Sequence[Identified], settings: Settings, host_mib: int) -> tuple[Seat, ...]:
    needs = [_need(item, least_on_cpu(item.model, settings), settings) for item in workers]
    if sum(need.mib for need in needs) > host_mib:
        raise ConfigurationError(refusal(needs, {"this machine": host_mib}, "available"))
    shares = shares_mib(needs, host_mib)
    return tuple(
        Seat(item.found, item.model, None, share, fit_on_cpu(item.model, share, settings))
        for item, share in zip(workers, shares, strict=True)
    )


def _need(item: Identified, least: int, settings: Settings) -> Need:
    model: ModelFacts = item.model
    tokens = settings.session_len or model.session_len
    return Need(item.wanted.name, least, model.geometry.kv_bytes * tokens)


def refusal(needs: Sequence[Need], rooms: dict[str, int], word: str) -> str:
    """Why workers do not fit together, with numbers, and what would. rooms: {a place in words: its MiB that are free}."""
    once = only_once(needs)
    counts = {need.model: [other.model for other in needs].count(need.model) for need in once}
    asked = ", ".join(f"{need.model}{_times(counts[need.model])} needs {need.mib} MiB" for need in once)
    each = " each" if any(count > 1 for count in counts.values()) else ""
    places = ", ".join(f"{place} has {mib} MiB {word}" for place, mib in rooms.items())
    fitting = [found for found in would_fit(once, [*rooms.values()]) if len(found) < len(needs)]
    remedy = " or ".join(",".join(found) for found in fitting)
    return (
        f"the models do not fit here together: {asked}{each}, {sum(need.mib for need in needs)} MiB in all; {places}; "
        + (f"{remedy} would fit, or all in turn with LINGBI_ON_DEMAND=true" if remedy else "free some memory")
    )


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""
