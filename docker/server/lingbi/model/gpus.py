"""The GPUs of a machine, and the engine that is chosen for them."""

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import pynvml

from lingbi.errors import ConfigurationError, StartError

log = logging.getLogger(__name__)
# The compute capabilities that TurboMind's kernels are compiled for, from the wheel's own build (Volta to Hopper).
# Ansible's preflight reads this line (ansible/filter_plugins/hosts.py).
OLDEST, NEWEST = (7, 0), (9, 0)
TURBOMIND, CPU = "turbomind", "cpu"


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: its name for CUDA_VISIBLE_DEVICES, its product name, and memory in MiB.

    capability: its compute capability, None where the driver does not tell. Cards that hold one copy of a model together
    count as one: their names with commas, and the memory of the one that has least.
    """

    device: str
    name: str
    total_mib: int
    free_mib: int
    capability: tuple[int, int] | None = None

    @property
    def cards(self) -> int:
        """How many cards this is."""
        return len(self.device.split(","))


@dataclass(frozen=True)
class Choice:
    """The engine chosen and the reason, for people."""

    engine: str
    reason: str


def find_gpus() -> list[Gpu]:
    """The GPUs that NVIDIA's driver reports and CUDA_VISIBLE_DEVICES admits (indices or UUIDs).

    One that the driver cannot reach, as after a fault of the card, is left out, with a line in the log.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        uuids = [_uuid(index) for index in range(pynvml.nvmlDeviceGetCount())]
        devices = admitted(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"))
        return [gpu for gpu in map(_reached, devices) if gpu]
    finally:
        pynvml.nvmlShutdown()


def _uuid(index: int) -> str:
    """A card's UUID; of one that the driver cannot reach a name that no other has."""
    try:
        return _text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
    except pynvml.NVMLError:
        return f"unreachable {index}"


def _reached(device: str) -> Gpu | None:
    try:
        return _describe(device)
    except pynvml.NVMLError as error:
        log.warning("GPU %s is left out, since the driver cannot reach it: %s", device, error)
        return None


def admitted(uuids: Sequence[str], visible: str | None = None) -> list[str]:
    """Devices that CUDA shows for a value of CUDA_VISIBLE_DEVICES (None: not set). uuids: those of all cards, by index.

    As with CUDA, a UUID may be shortened while it stays unique, the list ends at the first card that does not exist, and
    it is empty if a card is listed twice.
    """
    if visible is None:
        return [str(index) for index in range(len(uuids))]
    names = [name.strip() for name in visible.split(",") if name.strip()]
    found = list(takewhile(lambda name: name is not None, (_find(name, uuids) for name in names)))
    shown = [device for device in found if device is not None]
    cards = [uuids[int(device)] if device.isdigit() else device for device in shown]
    return shown if len(set(cards)) == len(cards) else []


def _find(name: str, uuids: Sequence[str]) -> str | None:
    """The device of one name in CUDA_VISIBLE_DEVICES: an index, a whole UUID, or a slice's name; None if there is none."""
    if name.startswith("MIG-"):
        return name
    if name.isdigit():
        return name if int(name) < len(uuids) else None
    cards = [uuid for uuid in uuids if uuid.startswith(name)]
    return cards[0] if len(cards) == 1 else None


def _describe(device: str) -> Gpu:
    find = pynvml.nvmlDeviceGetHandleByIndex if device.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
    handle = find(int(device) if device.isdigit() else device)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        device, _text(pynvml.nvmlDeviceGetName(handle)), memory.total >> 20, memory.free >> 20, _capability(handle)
    )


def _text(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told


def _capability(handle: Any) -> tuple[int, int] | None:
    """The compute capability of a card, or of a slice's card."""
    with contextlib.suppress(pynvml.NVMLError):
        if pynvml.nvmlDeviceIsMigDeviceHandle(handle):
            handle = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return major, minor
    return None


def look_at(device: str) -> Gpu:
    """The current state of a device, or of cards that are one together. Raises StartError if the driver cannot reach it."""
    try:
        pynvml.nvmlInit()
        try:
            return as_one([_describe(card) for card in device.split(",")])
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise StartError(
            f"the driver cannot reach GPU {device}, on which this worker was placed: {error}; see `nvidia-smi`"
        ) from None


def together(gpus: list[Gpu], cards: int) -> list[Gpu]:
    """The GPUs in groups of so many cards, in their order; those that are left over are in none."""
    return [as_one(gpus[first : first + cards]) for first in range(0, len(gpus) - cards + 1, cards)]


def as_one(gpus: list[Gpu]) -> Gpu:
    """Cards that hold one copy of a model together, as one GPU."""
    if len(gpus) == 1:
        return gpus[0]
    least = min(gpus, key=lambda gpu: gpu.free_mib)
    device = ",".join(gpu.device for gpu in gpus)
    return replace(least, device=device, total_mib=min(gpu.total_mib for gpu in gpus))


def emptied(gpus: list[Gpu]) -> list[Gpu]:
    """These GPUs as they would be with nothing running on them."""
    return [replace(gpu, free_mib=gpu.total_mib) for gpu in gpus]


def check_capability(gpus: list[Gpu]) -> None:
    """Raise ConfigurationError for a GPU that TurboMind was not built for."""
    for gpu in gpus:
        if gpu.capability and not OLDEST <= gpu.capability <= NEWEST:
            raise ConfigurationError(
                f"GPU {gpu.device} ({gpu.name}) has compute capability {told(gpu.capability)}, and TurboMind of LMDeploy "
                f"0.4.1 has code for {told(OLDEST)} to {told(NEWEST)} only; leave it out (CUDA_VISIBLE_DEVICES, or "
                "LINGBI_GPU_IDS in containers), or use engine cpu"
            )


def told(capability: tuple[int, int]) -> str:
    """A compute capability as NVIDIA writes it."""
    return ".".join(map(str, capability))


def choose_engine(requested: str, gpus: list[Gpu]) -> Choice:
    """Choose by what the machine has, unless the operator asked for an engine.

    Raises ConfigurationError if TurboMind is asked for and there is no GPU, and for a GPU that it has no code for.
    """
    if requested == TURBOMIND and not gpus:
        raise ConfigurationError(
            "engine turbomind needs an NVIDIA GPU and its driver, and none was found here "
            "(`nvidia-smi` shows what the driver sees); use engine cpu, or auto"
        )
    if requested != CPU:
        check_capability(gpus)
    if requested != "auto":
        return Choice(requested, f"asked for by the setting engine={requested}")
    if gpus:
        return Choice(TURBOMIND, f"{len(gpus)} GPU(s) found: {gpus[0].name}, {gpus[0].total_mib} MiB")
    return Choice(CPU, "no NVIDIA GPU found")
