"""Whether a model fits the memory of a machine, told before anything is loaded."""

from pathlib import Path

import psutil

from lingbi.engines.choice import CPU
from lingbi.errors import ConfigurationError
from lingbi.model_folder import ModelFolder

MIB = 1 << 20
# float32 is faster and exact, and twice the size: for checkpoints up to this many bytes.
FLOAT32_LIMIT_BYTES = 1 << 30
CPU_RUNTIME_MIB = 1024  # libraries, a picture's activations, KV cache of a few answers
# Measured on an H200 beside 16-bit weights: the vision tower in float32, CUDA context, buffers.
GPU_RUNTIME_MIB = 1750
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def uses_float32(folder: ModelFolder) -> bool:
    """Whether the CPU engine computes in float32 rather than bfloat16."""
    return folder.weight_bytes <= FLOAT32_LIMIT_BYTES


def needed_mib(folder: ModelFolder, engine: str) -> int:
    """MiB of host memory (CPU engine) or GPU memory without KV cache (TurboMind)."""
    weights = folder.weight_bytes // MIB
    if engine != CPU:
        return weights + GPU_RUNTIME_MIB
    return weights * (2 if uses_float32(folder) else 1) + CPU_RUNTIME_MIB


def available_mib(cgroup: Path = CGROUP) -> int:
    """MiB of host memory that a new process can have, within the limit of its control group."""
    free = psutil.virtual_memory().available // MIB
    for names in CGROUP_FILES:
        try:
            limit, used = ((cgroup / name).read_text().strip() for name in names)
        except OSError:
            continue
        return free if limit == "max" else min(free, (int(limit) - int(used)) // MIB)
    return free


def check_memory(folder: ModelFolder, engine: str, gpus: list, workers: int, host_mib: int) -> None:
    """Raise ConfigurationError with both numbers when the model does not fit."""
    needed = needed_mib(folder, engine)
    if engine == CPU:
        _compare(
            folder, needed * workers, host_mib, "memory available here", "free some, or use --model vl-1_8b or demo"
        )
    for gpu in gpus[:workers] if engine != CPU else ():
        remedy = "end what else uses the GPU (`nvidia-smi`), or use a smaller model"
        _compare(folder, needed, gpu.free_mib, f"free on GPU {gpu.device} ({gpu.name})", remedy)


def _compare(folder: ModelFolder, needed: int, there: int, where: str, remedy: str) -> None:
    if needed > there:
        raise ConfigurationError(f"{folder.served_name} needs {needed} MiB, and {there} MiB are {where}; {remedy}")
