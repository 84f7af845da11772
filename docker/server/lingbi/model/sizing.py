"""Chooses the engine's settings for a model on a GPU before anything is loaded.

Memory is calculated, not found by trial: the weights, what the engine needs besides them, and a KV cache with a
known number of blocks. The terms are those of TurboMind 0.4.1 and of lingbi's vision tower; docs/performance has
the measurements behind them, and tests/gpu/test_fit.py repeats these measurements.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.catalogue import ModelFacts
from lingbi.model.share import cards_of, share_of, tower_weights
from lingbi.turns import reserve_of

if TYPE_CHECKING:
    from lingbi.model.gpus import Gpu
    from lingbi.settings import Settings

log = logging.getLogger(__name__)
MIB = 1 << 20
BLOCK_TOKENS = 64  # tokens in a block of KV cache, the unit in which TurboMind allocates it
BITS = {"0": 16, "8": 8, "4": 4}
QUANTISED_EXTRA = 4  # bytes of scale and zero point per token, for each head's key or value
# The CUDA context, and the kernels of torch and TurboMind.
RUNTIME_MIB = 560
# What a card takes more beside another: NCCL's buffers, and CUDA's stacks, which are not shrunk there (workspaces.py). Two
# H200s under load, of which the fuller one was measured, took 891 (docs/tensor-parallel); rounded up.
TOGETHER_MIB = 900
# The tower's activations: per token of an image in CUDA graphs, or for an overview and up to 25 tiles in one batch.
TOWER_BYTES_A_TOKEN, TILED_TOWER_MIB, MEASURED_TILES = 150 << 10, 700, 25
# What a prompt token takes in a step, in widths of the model at 16 bits: states, keys and values, and those of the
# feed-forward layer. Smaller steps save only half of it: the rest holds the contexts of unfinished prompts.
HIDDEN_WIDTHS, FEED_FORWARD_WIDTHS = 10, 2
SESSION_WIDTHS = 2  # for every token of a session, whatever the step size
LOGITS_COPIES = 3  # in float32, for every answer that may run at once
FULL_STEP = 4096
# Tried in turn until a session fits; what costs answer quality comes last. Steps of 4096 were no faster.
STEPS = [(quant, prefill) for quant in BITS for prefill in (2048, 1024)]
BATCHES = (64, 16, 4)
WIDE_BATCH = 128  # if the cache has room for an image, a question and an answer each; else they would wait
DEFAULT_SHARE = 0.9
LEAST_ANSWER_TOKENS = 256
OTHERS_MIB = 1024  # less is no sign of other processes: the driver itself keeps up to 700 MiB
SETTLE_S, LOOK_S = 20, 2


@dataclass(frozen=True)
class Wanted:
    """What the operator set; None means that it is chosen to suit the card. cache_fraction: share of the memory that is
    left; hd_num: most tiles of an image, if the model uses tiles."""

    session_len: int | None = None
    max_batch_size: int | None = None
    prefill_tokens: int | None = None
    quant_policy: str | None = None
    cache_fraction: float | None = None
    gpu_memory_mib: int | None = None
    hd_num: int = catalogue.HD_NUM

    @classmethod
    def of(cls, settings: "Settings") -> "Wanted":
        """The settings of the server that the operator may have set."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


ANYTHING = Wanted()
CHOSEN = ("session_len", "max_batch_size", "prefill_tokens", "quant_policy", "cache_fraction")


@dataclass(frozen=True)
class Fit:
    """Settings of one worker's engine, and the memory that they take, in MiB.

    session_len, prefill_tokens: tokens; max_batch_size: answers at once, beside which the engine has a reserve (turns.py);
    quant_policy: as in lmdeploy; blocks: KV cache blocks of 64 tokens each. cards: those that hold this copy together; the
    memory is the first one's, and tower_mib of it are on no other.
    """

    session_len: int
    max_batch_size: int
    prefill_tokens: int
    quant_policy: str
    blocks: int
    weights_mib: int
    runtime_mib: int
    cache_mib: int
    cards: int = 1
    tower_mib: int = 0

    device = "gpu"

    @property
    def cache_tokens(self) -> int:
        return self.blocks * BLOCK_TOKENS

    @property
    def total_mib(self) -> int:
        """The most GPU memory in use at any time."""
        return self.weights_mib + self.runtime_mib + self.cache_mib

    def __str__(self) -> str:
        each = f" on each of {self.cards} cards" if self.cards > 1 else ""
        return (
            f"{self.total_mib} MiB at most{each}: {self.weights_mib} of weights, {self.runtime_mib} beside them, "
            f"{self.cache_mib} of KV cache for {self.cache_tokens} tokens of {BITS[self.quant_policy]} bits; "
            f"sessions of {self.session_len}, {self.max_batch_size} answers at once, {self.prefill_tokens} tokens a step"
        )


def fit(model: ModelFacts, free_mib: int, wanted: Wanted = ANYTHING, card: str = "a GPU") -> Fit:
    """The engine's settings for a model (catalogue.Model or ModelFolder) on a card with this much free memory.

    card: its name, for people.

    Raises ConfigurationError with the memory that is needed at least and the memory that is free.
    """
    room_mib = min(free_mib, wanted.gpu_memory_mib or free_mib)
    for candidate in _candidates(model, wanted):
        filled = _filled(model, candidate, room_mib, wanted.cache_fraction)
        if filled.cache_tokens >= candidate.session_len:
            return _widened(model, filled, room_mib, wanted)
    # The last candidate takes the least memory, so only its session can still be shortened.
    if filled.cache_tokens >= least_session(model, wanted):
        return replace(filled, session_len=filled.cache_tokens)
    limit = f", of which LINGBI_GPU_MEMORY_MIB allows {room_mib}" if room_mib < free_mib else ""
    raise ConfigurationError(
        f"{model.served_name} needs {least_mib(model, wanted)} MiB, and {free_mib} MiB are free on {card}{limit}; "
        f"{_remedy(model, free_mib, room_mib, wanted)}, or use a smaller model"
    )


def _widened(model: ModelFacts, found: Fit, room_mib: int, wanted: Wanted) -> Fit:
    """The fit with WIDE_BATCH if the batch was not reduced and the cache is large enough for it, else as found."""
    if wanted.max_batch_size or found.max_batch_size < BATCHES[0]:
        return found
    beside_mib = runtime_mib(
        model, WIDE_BATCH + reserve_of(WIDE_BATCH), found.prefill_tokens, found.session_len, wanted.hd_num
    )
    empty = replace(found, max_batch_size=WIDE_BATCH, runtime_mib=beside_mib, cache_mib=0)
    wide = _filled(model, empty, room_mib, wanted.cache_fraction)
    needed_tokens = max(found.session_len, WIDE_BATCH * image_session(model, wanted.hd_num))
    return wide if wide.cache_tokens >= needed_tokens else found


def _remedy(model: ModelFacts, free_mib: int, room_mib: int, wanted: Wanted) -> str:
    said = [f"LINGBI_{name.upper()}" for name in CHOSEN if getattr(wanted, name) is not None]
    if said and least_mib(model, Wanted(hd_num=wanted.hd_num)) <= room_mib:
        return f"leave {', '.join(said)} to be chosen for it"
    if wanted.hd_num > 1 and least_mib(model, replace(wanted, hd_num=1)) <= room_mib:
        return f"lower LINGBI_HD_NUM, which is {wanted.hd_num}"
    if least_mib(model, wanted) <= free_mib:
        return "allow more"
    return "end what else uses the GPU (`nvidia-smi`)"


def least_mib(model: ModelFacts, wanted: Wanted = ANYTHING) -> int:
    """The least free memory for which `fit` finds settings."""
    *_, smallest = _candidates(model, wanted)
    blocks = -(-least_session(model, wanted) // BLOCK_TOKENS)
    cache = Fraction(blocks * block_bytes(model, smallest.quant_policy), MIB)
    return smallest.total_mib + math.ceil(cache / _share(wanted.cache_fraction))


def fit_on(model: ModelFacts, gpu: "Gpu", settings: "Settings") -> Fit:
    """Like `fit`, for a card in its current state (gpus.Gpu) and the server's settings."""
    return fit(share_of(model, gpu.cards), gpu.free_mib, Wanted.of(settings), f"GPU {gpu.device} ({gpu.name})")


def fit_when_free(model: ModelFacts, look: Callable[[], "Gpu"], settings: "Settings") -> Fit:
    """Like `fit_on`, for a card that other processes may be leaving; look() returns its current state.

    Waits while its memory is being freed, for at most SETTLE_S, and logs a warning if other processes reduce the fit.
    """
    gpu = look()
    deadline = time.monotonic() + SETTLE_S
    while _is_reduced(gpu, settings.gpu_memory_mib) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        before, gpu = gpu, look()
        if gpu.free_mib <= before.free_mib:
            break
    found = fit_on(model, gpu, settings)
    alone = fit_on(model, replace(gpu, free_mib=gpu.total_mib), settings)
    if _others_mib(gpu) > OTHERS_MIB and found != alone:
        log.warning(
            "others hold %d of %d MiB of GPU %s (%s); what this worker takes there: %s; what it would take alone: %s",
            *(_others_mib(gpu), gpu.total_mib, gpu.device, gpu.name, found, alone),
        )
    return found


def _is_reduced(gpu: "Gpu", allowed_mib: int | None) -> bool:
    """Whether other processes hold some of the memory that a worker may take."""
    return _others_mib(gpu) > OTHERS_MIB and gpu.free_mib < (allowed_mib or gpu.total_mib)


def _others_mib(gpu: "Gpu") -> int:
    return gpu.total_mib - gpu.free_mib


def least_session(model: ModelFacts, wanted: Wanted = ANYTHING) -> int:
    """Tokens of the session that was asked for, or else of image_session."""
    return wanted.session_len or image_session(model, wanted.hd_num)


def image_session(model: ModelFacts, hd_num: int) -> int:
    """Tokens of the shortest session that holds the largest image, a question and an answer.

    The published form of the prompt has one token more than lmdeploy's, which shortens the answer by one.
    """
    image = catalogue.image_tokens(model.image_side, *catalogue.largest_image(hd_num), hd_num)
    return image + catalogue.TEMPLATE_TOKENS + LEAST_ANSWER_TOKENS


def _candidates(model: ModelFacts, wanted: Wanted) -> Iterator[Fit]:
    """Fits without a cache: the best first, then those that take less memory."""
    batches = BATCHES if wanted.max_batch_size is None else (wanted.max_batch_size,)
    for batch in batches:
        for quant, prefill in STEPS:
            if wanted.quant_policy not in (None, quant):
                continue
            tokens = wanted.prefill_tokens or prefill
            session_len = wanted.session_len or model.session_len
            yield Fit(
                session_len=session_len,
                max_batch_size=batch,
                prefill_tokens=tokens,
                quant_policy=quant,
                blocks=0,
                weights_mib=model.weight_bytes // MIB,
                runtime_mib=runtime_mib(model, batch + reserve_of(batch), tokens, session_len, wanted.hd_num),
                cache_mib=0,
                cards=cards_of(model),
                tower_mib=(tower_weights(model) + tower_bytes(model.image_side, wanted.hd_num)) // MIB,
            )


def _filled(model: ModelFacts, candidate: Fit, room_mib: int, cache_fraction: float | None) -> Fit:
    """The candidate with the largest cache that fits in the rest of the room."""
    left_mib = max(0, room_mib - candidate.total_mib)
    blocks = math.floor(left_mib * MIB * _share(cache_fraction) / block_bytes(model, candidate.quant_policy))
    return replace(candidate, blocks=blocks, cache_mib=_cache_mib(model, blocks, candidate.quant_policy))


def _share(cache_fraction: float | None) -> Fraction:
    """The cache's share of the memory that is left; exact, so that least_mib is indeed the least that `fit` accepts."""
    return Fraction(cache_fraction or DEFAULT_SHARE)


def cache_room_mib(model: ModelFacts, free_mib: int, hd_num: int) -> int:
    """MiB left for KV cache if all settings but hd_num are chosen for the model."""
    found = fit(model, free_mib, Wanted(hd_num=hd_num))
    return free_mib - found.weights_mib - found.runtime_mib


def _cache_mib(model: ModelFacts, blocks: int, quant_policy: str) -> int:
    return -(-blocks * block_bytes(model, quant_policy) // MIB)


def block_bytes(model: ModelFacts, quant_policy: str) -> int:
    """Bytes of a block of KV cache."""
    shape = model.geometry
    at_16 = shape.kv_bytes
    heads = 2 * shape.layers * shape.kv_heads
    extra = heads * QUANTISED_EXTRA if BITS[quant_policy] < 16 else 0
    return BLOCK_TOKENS * (at_16 * BITS[quant_policy] // 16 + extra)


def runtime_mib(model: ModelFacts, batch: int, prefill_tokens: int, session_len: int, hd_num: int) -> int:
    """MiB besides weights and cache: libraries, the vision tower's activations, and the engine's buffers."""
    shape = model.geometry
    width = HIDDEN_WIDTHS * shape.hidden_size + FEED_FORWARD_WIDTHS * shape.intermediate_size
    step = 2 * (prefill_tokens + FULL_STEP) // 2 * width
    session = 2 * SESSION_WIDTHS * session_len * shape.hidden_size
    logits = LOGITS_COPIES * 4 * batch * shape.vocabulary
    together_mib = TOGETHER_MIB if cards_of(model) > 1 else 0
    return RUNTIME_MIB + together_mib + (step + session + logits + tower_bytes(model.image_side, hd_num)) // MIB


def tower_bytes(side: int | None, hd_num: int) -> int:
    """Bytes of the tower's activations for an image with this side, or (None) with up to hd_num tiles."""
    if side is not None:
        return (side // catalogue.PATCH) ** 2 * TOWER_BYTES_A_TOKEN
    return for_tiles(TILED_TOWER_MIB * MIB, hd_num)


def for_tiles(measured: int, hd_num: int) -> int:
    """What an overview and hd_num tiles take, scaled from a measurement with MEASURED_TILES.

    More tiles need proportionally more, as all go through the tower in one batch: on an H200, 25 took 630 MiB and
    55 took 1301.
    """
    return measured * (max(hd_num, MEASURED_TILES) + 1) // (MEASURED_TILES + 1)
