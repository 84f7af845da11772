"""Whether a model fits the memory of a machine, told before anything is loaded; fit.py tells of a GPU."""

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lingbi.errors import ConfigurationError
from lingbi.model.catalogue import ModelFacts
from lingbi.model.gpus import CPU, Gpu
from lingbi.model.sizing import Fit, fit_on

if TYPE_CHECKING:
    from lingbi.settings import Settings

MIB = 1 << 20
# float32 is faster and exact, and twice the size: for checkpoints up to this many bytes.
FLOAT32_LIMIT_BYTES = 1 << 30
CPU_RUNTIME_MIB = 1024  # libraries, a picture's activations, KV cache of a few answers
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def uses_float32(model: ModelFacts) -> bool:
    """Whether the CPU engine computes in float32 rather than bfloat16."""
    return model.weight_bytes <= FLOAT32_LIMIT_BYTES


def needed_mib(model: ModelFacts) -> int:
    """MiB of host memory that the CPU engine takes."""
    weights = model.weight_bytes // MIB
    return weights * (2 if uses_float32(model) else 1) + CPU_RUNTIME_MIB


def available_mib(cgroup: Path = CGROUP) -> int:
    """MiB of host memory that a new process can have, within the limit of its control group."""
    free = int(psutil.virtual_memory().available) // MIB
    for names in CGROUP_FILES:
        try:
            limit, used = ((cgroup / name).read_text().strip() for name in names)
        except OSError:
            continue
        return free if limit == "max" else min(free, (int(limit) - int(used)) // MIB)
    return free


def check_memory(
    model: ModelFacts, engine: str, gpus: list[Gpu], workers: int, host_mib: int, settings: "Settings"
) -> list[Fit]:
    """The Fit of each worker's GPU (none on the CPU). Raises ConfigurationError with both numbers for what does not fit."""
    if engine != CPU:
        return [fit_on(model, gpu, settings) for gpu in gpus[:workers]]
    needed = needed_mib(model) * workers
    if needed > host_mib:
        raise ConfigurationError(
            f"{model.served_name} needs {needed} MiB, and {host_mib} MiB are memory available here; "
            "free some, or use --model vl-1_8b or demo"
        )
    return []
