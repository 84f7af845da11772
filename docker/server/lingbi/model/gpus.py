"""The GPUs of a machine, and the engine that is chosen for them."""

import contextlib
import os
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import pynvml

from lingbi.errors import ConfigurationError

# The compute capabilities that TurboMind's kernels are compiled for, from the wheel's own build (Volta to Hopper).
# Ansible's preflight reads this line (ansible/filter_plugins/hosts.py).
OLDEST, NEWEST = (7, 0), (9, 0)
TURBOMIND, CPU = "turbomind", "cpu"


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: its name for CUDA_VISIBLE_DEVICES, its product name, and memory in MiB.

    capability: its compute capability, None where the driver does not tell.
    """

    device: str
    name: str
    total_mib: int
    free_mib: int
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Choice:
    """The engine chosen and the reason, for people."""

    engine: str
    reason: str


def find_gpus() -> list[Gpu]:
    """The GPUs that NVIDIA's driver reports and CUDA_VISIBLE_DEVICES admits (indices or UUIDs)."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        every = [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_describe(device) for device in admitted(every, os.environ.get("CUDA_VISIBLE_DEVICES"))]
    finally:
        pynvml.nvmlShutdown()


def admitted(every: list[str], visible: str | None = None) -> list[str]:
    """Devices that CUDA shows for a value of CUDA_VISIBLE_DEVICES (None: not set).

    As with CUDA, the list ends at the first index that does not exist, and is empty if a device is listed twice.
    """
    if visible is None:
        return every
    names = [name.strip() for name in visible.split(",") if name.strip()]
    shown = list(takewhile(lambda name: name in every or not name.lstrip("-").isdigit(), names))
    return shown if len(set(shown)) == len(shown) else []


def _describe(device: str) -> Gpu:
    find = pynvml.nvmlDeviceGetHandleByIndex if device.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
    handle = find(int(device) if device.isdigit() else device)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    name = name.decode() if isinstance(name, bytes) else name
    return Gpu(device, name, memory.total >> 20, memory.free >> 20, _capability(handle))


def _capability(handle: Any) -> tuple[int, int] | None:
    """The compute capability of a card, or of a slice's card."""
    with contextlib.suppress(pynvml.NVMLError):
        if pynvml.nvmlDeviceIsMigDeviceHandle(handle):
            handle = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return major, minor
    return None


def look_at(device: str) -> Gpu:
    """The current state of a device. Raises pynvml.NVMLError if the driver cannot reach it."""
    pynvml.nvmlInit()
    try:
        return _describe(device)
    finally:
        pynvml.nvmlShutdown()


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
