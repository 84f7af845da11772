"""Whether a model fits the memory of a machine, told before anything is loaded; fit.py tells of a GPU."""

from pathlib import Path

import psutil

from lingbi.errors import ConfigurationError
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import CPU
from lingbi.model.sizing import MEASURED_TILES, fit_on

MIB = 1 << 20
# float32 is faster and exact, and twice the size: for checkpoints up to this many bytes.
FLOAT32_LIMIT_BYTES = 1 << 30
CPU_RUNTIME_MIB = 1024  # libraries, a picture's activations, KV cache of a few answers
# Of each tile above those that it covers: CLIP's scores of 577 tokens in 16 heads, three times at once in bfloat16.
# Counted, and still to be measured.
CPU_TILE_MIB = 32
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def uses_float32(folder: ModelFolder) -> bool:
    """Whether the CPU engine computes in float32 rather than bfloat16."""
    return folder.weight_bytes <= FLOAT32_LIMIT_BYTES


def needed_mib(folder: ModelFolder, hd_num: int) -> int:
    """MiB of host memory that the CPU engine takes; hd_num: tiles of an image, where the model has tiles."""
    weights = folder.weight_bytes // MIB
    tiles = max(0, hd_num - MEASURED_TILES) if folder.image_side is None else 0
    return weights * (2 if uses_float32(folder) else 1) + CPU_RUNTIME_MIB + tiles * CPU_TILE_MIB


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


def check_memory(folder: ModelFolder, engine: str, gpus: list, workers: int, host_mib: int, settings) -> list:
    """The Fit of each worker's GPU (none on the CPU). Raises ConfigurationError with both numbers for what does not fit."""
    if engine != CPU:
        return [fit_on(folder, gpu, settings) for gpu in gpus[:workers]]
    needed = needed_mib(folder, settings.hd_num) * workers
    if needed > host_mib:
        raise ConfigurationError(
            f"{folder.served_name} needs {needed} MiB, and {host_mib} MiB are memory available here; "
            "free some, or use --model vl-1_8b or demo"
        )
    return []
