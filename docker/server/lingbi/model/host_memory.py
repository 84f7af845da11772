"""Whether a model fits the host memory of a machine, told before anything is loaded; sizing.py tells of a GPU."""

from pathlib import Path

import psutil

from lingbi.errors import ConfigurationError
from lingbi.model.folder import ModelFolder

MIB = 1 << 20
# float32 is faster and exact, and twice the size: for checkpoints up to this many bytes.
FLOAT32_LIMIT_BYTES = 1 << 30
CPU_RUNTIME_MIB = 1024  # libraries, a picture's activations, KV cache of a few answers
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def uses_float32(folder: ModelFolder) -> bool:
    """Whether the CPU engine computes in float32 rather than bfloat16."""
    return folder.weight_bytes <= FLOAT32_LIMIT_BYTES


def needed_mib(folder: ModelFolder) -> int:
    """MiB of host memory that the CPU engine takes."""
    weights = folder.weight_bytes // MIB
    return weights * (2 if uses_float32(folder) else 1) + CPU_RUNTIME_MIB


def available_mib(cgroup: Path = CGROUP) -> int:
    """MiB of host memory that a new process can have, within the limit of its control group."""
    free, room = psutil.virtual_memory().available // MIB, _room_mib(cgroup)
    return free if room is None else min(free, room)


def whole_mib(cgroup: Path = CGROUP) -> int:
    """MiB of the machine's memory, or what its control group leaves of it where that is less than what is free."""
    memory, room = psutil.virtual_memory(), _room_mib(cgroup)
    is_limited = room is not None and room < memory.available // MIB
    return room if is_limited else memory.total // MIB


def _room_mib(cgroup: Path) -> int | None:
    """MiB that a control group may still take; None: it has no limit."""
    for names in CGROUP_FILES:
        try:
            limit, used = ((cgroup / name).read_text().strip() for name in names)
        except OSError:
            continue
        return None if limit == "max" else (int(limit) - int(used)) // MIB
    return None


def check_host_memory(model, workers: int, host_mib: int) -> None:
    """Raise ConfigurationError, with both numbers, where the CPU engine's workers need more host memory than there is."""
    needed = needed_mib(model) * workers
    if needed > host_mib:
        raise ConfigurationError(
            f"{model.served_name} needs {needed} MiB, and {host_mib} MiB are memory available here; "
            "free some, or use --model vl-1_8b or demo"
        )
