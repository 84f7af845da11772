"""Decides whether a model fits in host memory before anything is loaded; sizing.py does the same for a GPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lingbi.errors import ConfigurationError
from lingbi.model.catalogue import ModelFacts
from lingbi.model.gpus import CPU, Gpu
from lingbi.model.sizing import Fit, fit_on, for_tiles, image_session
from lingbi.turns import reserve_of

if TYPE_CHECKING:
    from lingbi.settings import Settings

MIB = 1 << 20
# float32 is faster and exact but takes twice the memory, so where bfloat16 is fast only checkpoints up to this many bytes use it.
FLOAT32_LIMIT_BYTES = 1 << 30
PROCESSOR = Path("/proc/cpuinfo")
# Without these torch has no fast product of bfloat16 matrices on x86: its own takes a picture minutes.
BFLOAT16_FLAGS = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
CPU_RUNTIME_MIB = 1024  # libraries, and the vision tower's activations for an image
TILED_TOWER_MIB = 1024  # further activations for up to 26 tiles of 4khd-7b
# Tokens per step: larger steps are hardly faster, and smaller ones are used only if memory is short.
FAIR_PREFILL_TOKENS, LEAST_PREFILL_TOKENS = 256, 32
LIGHT = ("vl-1_8b", "demo")  # the models that need least, the lightest last
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


@dataclass(frozen=True)
class CpuFit:
    """Settings of the CPU engine, and the most host memory that they take, in MiB.

    session_len, prefill_tokens: tokens; max_batch_size: answers that advance in turn; kept_sessions: sessions kept
    for a follow-up; cache_mib: KV cache of all of these, and of the reserve (turns.py), at their full length.
    """

    session_len: int
    max_batch_size: int
    kept_sessions: int
    prefill_tokens: int
    weights_mib: int
    runtime_mib: int
    cache_mib: int

    device = "cpu"

    @property
    def cache_tokens(self) -> int:
        """Tokens that running answers can hold."""
        return self.max_batch_size * self.session_len

    @property
    def total_mib(self) -> int:
        """The most host memory that is in use at any time."""
        return self.weights_mib + self.runtime_mib + self.cache_mib

    def __str__(self) -> str:
        return (
            f"{self.total_mib} MiB at most: {self.weights_mib} of weights, {self.runtime_mib} beside them, "
            f"{self.cache_mib} of KV cache; sessions of {self.session_len}, {self.max_batch_size} answers in turn and "
            f"{self.kept_sessions} kept, {self.prefill_tokens} tokens a step"
        )


def fit_on_cpu(model: ModelFacts, host_mib: int, settings: "Settings", workers: int = 1) -> CpuFit:
    """The CPU engine's settings for a model, for each of several workers.

    host_mib: available memory. The operator's settings are upper bounds: if memory is short, steps get smaller,
    fewer sessions are kept, fewer answers advance in turn, and the session gets shorter, in that order.
    Raises ConfigurationError with the memory that is needed at least and the memory that is available.
    """
    share_mib = host_mib // workers
    candidates = list(_candidates(model, settings))
    for candidate in candidates:
        if candidate.total_mib <= share_mib:
            return candidate
    raise ConfigurationError(
        f"{model.served_name} needs {candidates[-1].total_mib * workers} MiB, and {host_mib} MiB are memory available here; "
        f"{_remedy(model)}"
    )


def _remedy(model: ModelFacts) -> str:
    """What to do where there is too little memory for a model."""
    at = next((place for place, name in enumerate(LIGHT) if model.served_name.endswith(f"-{name}")), -1)
    lighter = " or ".join(LIGHT[at + 1 :])
    return f"free some, or use --model {lighter}" if lighter else "free some"


def needed_mib(model: ModelFacts, hd_num: int) -> int:
    """The least MiB of host memory that the CPU engine needs for sessions with one image of at most hd_num tiles."""
    return _fit(model, hd_num, image_session(model, hd_num), 1, 0, LEAST_PREFILL_TOKENS).total_mib


def least_on_cpu(model: ModelFacts, settings: "Settings") -> int:
    """The least MiB of host memory for which `fit_on_cpu` finds settings."""
    *_, smallest = _candidates(model, settings)
    return smallest.total_mib


def _candidates(model: ModelFacts, settings: "Settings") -> Iterator[CpuFit]:
    """Fits in order of preference; the last one takes the least memory."""
    full = settings.session_len or model.session_len
    least = full if settings.session_len else min(full, image_session(model, settings.hd_num))
    at_once, kept = settings.cpu_sequences, settings.cpu_kept_sessions
    chunks = list(_halved(min(settings.cpu_prefill_tokens, full)))
    fair = [chunk for chunk in chunks if chunk >= FAIR_PREFILL_TOKENS] or chunks[:1]
    fit = partial(_fit, model, settings.hd_num)
    yield from (fit(full, at_once, kept, chunk) for chunk in fair)
    yield from (fit(full, at_once, count, fair[-1]) for count in range(kept - 1, 0, -1))
    kept = min(kept, 1)
    yield from (fit(full, count, kept, fair[-1]) for count in range(at_once - 1, 0, -1))
    yield from (fit(full, 1, kept, chunk) for chunk in chunks)
    yield fit(full, 1, 0, chunks[-1])
    yield fit(least, 1, 0, chunks[-1])


def _halved(tokens: int) -> Iterator[int]:
    """This number, half of it, and so on, down to LEAST_PREFILL_TOKENS."""
    yield tokens
    while tokens > LEAST_PREFILL_TOKENS:
        tokens = max(LEAST_PREFILL_TOKENS, tokens // 2)
        yield tokens


def _fit(model: ModelFacts, hd_num: int, session_len: int, at_once: int, kept: int, prefill_tokens: int) -> CpuFit:
    width = 4 if uses_float32(model) else 2  # bytes per number
    shape = model.geometry
    weights = model.weight_bytes // MIB * width // 2
    # One layer's attention scores in a step: as computed, and as float32 before and after the softmax.
    scores = shape.heads * prefill_tokens * session_len * (width + 8)
    cache = (at_once + reserve_of(at_once) + kept) * session_len * shape.kv_bytes * width // 2
    tiles = for_tiles(TILED_TOWER_MIB, hd_num) if model.image_side is None else 0
    runtime = CPU_RUNTIME_MIB + tiles + scores // MIB
    return CpuFit(session_len, at_once, kept, prefill_tokens, weights, runtime, -(-cache // MIB))


def uses_float32(model: ModelFacts) -> bool:
    """Whether the CPU engine computes in float32 rather than bfloat16."""
    return model.weight_bytes <= FLOAT32_LIMIT_BYTES or not has_fast_bfloat16(PROCESSOR)


@lru_cache
def has_fast_bfloat16(processor: Path) -> bool:
    """Whether the processor that this file of the kernel describes multiplies bfloat16 matrices fast; so does one unlike x86."""
    found = [line for line in processor.read_text().splitlines() if line.startswith("flags")]
    return not found or set(found[0].split()) >= BFLOAT16_FLAGS


def available_mib(cgroup: Path = CGROUP) -> int:
    """MiB of host memory that a new process can allocate within the limit of its control group."""
    free, room = int(psutil.virtual_memory().available) // MIB, _room_mib(cgroup)
    return free if room is None else min(free, room)


def workers_share_mib(workers: int) -> int:
    """MiB that one of several workers may plan with: what is available now, but at most its share of the machine.

    The other workers may be starting too, or may already hold their share.
    """
    return min(available_mib(), whole_mib() // workers)


def whole_mib(cgroup: Path = CGROUP) -> int:
    """MiB of the machine's memory, or what its control group still allows if that is less than what is free."""
    memory, room = psutil.virtual_memory(), _room_mib(cgroup)
    if room is not None and room < memory.available // MIB:
        return room
    return int(memory.total) // MIB


def _room_mib(cgroup: Path) -> int | None:
    """MiB that a control group may still take; None: it has no limit."""
    for names in CGROUP_FILES:
        try:
            limit, used = ((cgroup / name).read_text().strip() for name in names)
        except OSError:
            continue
        return None if limit == "max" else (int(limit) - int(used)) // MIB
    return None


def check_memory(
    model: ModelFacts, engine: str, gpus: list[Gpu], workers: int, host_mib: int, settings: "Settings"
) -> list[Fit | CpuFit]:
    """Each worker's fit on its GPU, or in its share of host memory. Raises ConfigurationError with the memory that is
    needed and the memory that is available if the model does not fit."""
    if engine != CPU:
        return [fit_on(model, gpu, settings) for gpu in gpus[:workers]]
    return [fit_on_cpu(model, host_mib, settings, workers)] * workers
