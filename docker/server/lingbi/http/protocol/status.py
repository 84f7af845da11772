"""What /live, /health and /ready report."""

from typing import Literal

from pydantic import BaseModel


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Weights(BaseModel):
    """How far fetching or checking of weights is; seconds_left is null while nothing moves."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: int
    seconds_left: int | None


class Planned(BaseModel):
    """An engine's settings, in tokens and answers at once, and the most memory that it takes, in MiB: weights, what is
    beside them, and KV cache."""

    session_len: int
    max_batch_size: int
    prefill_tokens: int
    weights_mib: int
    runtime_mib: int
    cache_mib: int
    total_mib: int


class OnGpu(Planned):
    """The engine's settings on a GPU and the memory that it takes there, in MiB; `blocks` of KV cache; `cards` that hold
    this copy together, and what of the memory only the first one holds, the vision tower's."""

    quant_policy: str
    blocks: int
    cards: int
    tower_mib: int


class OnCpu(Planned):
    """The CPU engine's settings and the memory that it takes, in MiB; sessions that are kept for a follow-up."""

    kept_sessions: int


class Prompts(BaseModel):
    """How prompts are made: their form, the tokens that it puts around one picture and a question, and the most tiles of
    a picture, where the model has tiles."""

    form: Literal["lmdeploy", "published"]
    template_tokens: int
    hd_num: int | None = None


class Ready(BaseModel):
    """How the worker is. progress: 0 to 1 while it loads; weights: while they are fetched or checked;
    gpu, cpu: what the engine takes there; prompt: once the model is loaded; image_tokens: the fewest and the most of an image
    in a prompt; state: where models are loaded on demand, asleep, waking, ready or draining."""

    status: Literal["ready", "not ready"]
    phase: str
    phase_seconds: float
    progress: float
    model: str
    engine: str
    engine_reason: str
    gpu: OnGpu | None = None
    cpu: OnCpu | None = None
    prompt: Prompts | None = None
    image_tokens: list[int] | None = None
    weights: Weights | None = None
    probe: dict[str, float] | None = None
    error: str | None = None
    state: str | None = None
