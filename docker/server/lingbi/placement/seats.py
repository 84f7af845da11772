"""What a start decides about the workers of a machine, and what each of them is told of it."""

from collections import Counter
from dataclasses import dataclass

from lingbi.model import catalogue
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import Choice
from lingbi.model.host_memory import CpuFit
from lingbi.model.resolve import Found
from lingbi.model.sizing import Fit


@dataclass(frozen=True)
class Assignment:
    """What one worker is told. model: its name in the API; source: the model for resolve.find_model; device: its GPU, for
    CUDA_VISIBLE_DEVICES, None on the CPU; memory_mib: the most that it may take of the card, or of host memory on the
    CPU, where others share it; None: what is free, or what the settings allow."""

    model: str
    source: str
    device: str | None
    memory_mib: int | None


@dataclass(frozen=True)
class Seat:
    """One worker's place: its model as found, and as planner.identify knows it; device, memory_mib: as in Assignment;
    fit: on its GPU or in its share of host memory, None if nothing is known about the model yet."""

    found: Found
    model: ModelFolder | catalogue.Model | None
    device: str | None
    memory_mib: int | None
    fit: Fit | CpuFit | None

    @property
    def served_name(self) -> str:
        """The model's name in the API."""
        return (self.model or self.found).served_name

    @property
    def place(self) -> str:
        """What the worker serves and where, for people."""
        return self.served_name if self.device is None else f"{self.served_name} on GPU {self.device}"

    @property
    def assignment(self) -> Assignment:
        return Assignment(self.served_name, source_of(self.found), self.device, self.memory_mib)


@dataclass(frozen=True)
class Placement:
    """Which engine serves what on a machine. seats: one for each worker, in the order of their ports: the workers of the
    first model, then those of the next."""

    choice: Choice
    seats: tuple[Seat, ...]

    @property
    def workers(self) -> int:
        return len(self.seats)

    @property
    def models(self) -> tuple[Seat, ...]:
        """A seat of every model, in the order in which the models were named."""
        return tuple({seat.served_name: seat for seat in reversed(self.seats)}.values())[::-1]

    @property
    def is_of_several(self) -> bool:
        return len(self.models) > 1

    def names(self) -> dict[str, object]:
        """For records of a start: `model`, the first one's name; `models`, every model's, where there are several."""
        every = [seat.served_name for seat in self.models]
        return {"model": every[0]} | ({"models": every} if self.is_of_several else {})

    def labels(self) -> list[str]:
        """For each worker the name of its model where there are several, else an empty text."""
        return [seat.served_name if self.is_of_several else "" for seat in self.seats]

    def lines(self) -> list[str]:
        """What was decided, and why, for people."""
        lines = [f"model   {seat.served_name}: {seat.found.reason}" for seat in self.models]
        lines.append(f"engine  {self.choice.engine}: {self.choice.reason}")
        for worker, seat in enumerate(self.seats):
            if seat.fit:
                lines.append(f"memory  worker {worker}{f' ({seat.place})' if self.is_of_several else ''}: {seat.fit}")
        return lines

    def __str__(self) -> str:
        """The models and their workers, for people."""
        counts = Counter(seat.served_name for seat in self.seats)
        return ", ".join(f"{name} with {count} worker(s)" for name, count in counts.items())

    @property
    def found(self) -> Found:
        """Where the first model is."""
        return self.seats[0].found

    @property
    def model(self) -> ModelFolder | catalogue.Model | None:
        """The first model, as planner.identify knows it."""
        return self.seats[0].model

    @property
    def served_name(self) -> str:
        """The first model's name in the API."""
        return self.seats[0].served_name

    @property
    def fits(self) -> tuple[Fit | CpuFit, ...]:
        """One for each worker; empty if nothing is known about the model yet."""
        return tuple(seat.fit for seat in self.seats if seat.fit)


def source_of(found: Found) -> str:
    """What find_model finds the same model by."""
    return found.hub_id or str(found.path.resolve())
