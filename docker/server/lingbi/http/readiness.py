"""A worker's readiness as /ready reports it, and the messages of the probe that worker/probe.py asks."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from lingbi.engine.progress import PromptProgress
from lingbi.images.messages import data_url, user_message
from lingbi.model.host_memory import CpuFit
from lingbi.model.sizing import Fit
from lingbi.weights.progress import Progress

STARTING, PREPARING, PROBING = "starting", "preparing weights", "probing"
LOADING, LOADING_MODEL = "loading vision tower", "loading language model"
READY, FAILED, DRAINING, WEDGED, GPU_GONE = "ready", "failed", "draining", "not answering", "GPU gone"
WEIGHTS_LOADED = "weights loaded"
ASLEEP, LEAVING = "asleep", "being put away"  # where models are loaded on demand
PROGRESS = {STARTING: 0.0, PREPARING: 0.0, LOADING: 0.05, LOADING_MODEL: 0.4, PROBING: 0.95}
ON_DEMAND_STATES = {ASLEEP: "asleep", READY: "ready", LEAVING: "draining", DRAINING: "draining"} | dict.fromkeys(
    PROGRESS, "waking"
)
PROBE_QUESTION = "请描述图中内容"


@dataclass
class Readiness:
    """The state that /ready reports; the loading thread and the watchdog write it, requests read it."""

    model: str
    engine: str
    reason: str
    phase: str = STARTING
    since: float = field(default_factory=time.monotonic)
    probe: dict[str, Any] | None = None
    error: str | None = None
    weights: Progress = field(default_factory=Progress)  # of fetching or verifying them
    fit: Fit | CpuFit | None = None  # the engine's settings, and the memory that they take
    loaded: float = 0.0  # share of the language model that is on the GPU
    computed: float = 0.0  # share of the probe's prompt that a CPU has computed
    prompt: dict[str, Any] | None = None  # how prompts are made, as protocol.Prompts
    image_tokens: tuple[int, int] | None = None  # the fewest and the most of an image in a prompt
    on_demand: "OnDemand | None" = None

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered: at once or, where models are loaded on demand, as soon as the model is."""
        return self.is_loaded or (self.is_open and self.error is None)

    @property
    def is_open(self) -> bool:
        """Whether requests are let in. A model that could not be loaded is tried again for them."""
        return self.is_loaded or (self.on_demand is not None and self.on_demand.takes(self.phase))

    @property
    def is_loaded(self) -> bool:
        """Whether requests are answered at once."""
        return self.phase in (READY, LEAVING)

    def enter(self, phase: str, error: str | None = None) -> None:
        self.phase, self.since, self.error = phase, time.monotonic(), error
        if self.on_demand:
            self.on_demand.note(phase, self.since)

    def weights_loaded(self, done_bytes: int, all_bytes: int) -> None:
        """Note how much of the language model has been loaded, in bytes."""
        self.loaded = done_bytes / all_bytes
        if self.on_demand and done_bytes >= all_bytes:
            self.on_demand.note(WEIGHTS_LOADED, time.monotonic())

    def probe_computed(self, prompt: PromptProgress) -> None:
        """Note how much of the probe's prompt has been computed."""
        self.computed = prompt.done_tokens / prompt.all_tokens

    def progress(self) -> float:
        """How far the start has come, from 0 to 1."""
        begun = PROGRESS.get(self.phase, 1.0)
        if self.phase == LOADING_MODEL:
            return begun + (PROGRESS[PROBING] - begun) * self.loaded
        if self.phase == PROBING:
            return begun + (1.0 - begun) * self.computed
        return begun

    def report(self) -> dict[str, Any]:
        """The body of /ready: phase, seconds in it, progress of loading, model, engine and why, last probe, error;
        `gpu` or `cpu`: the engine's settings there, and the memory that they take; `prompt`: how prompts are made; `image_tokens`: the
        fewest and the most of an image in a prompt.

        While weights are fetched or checked, `weights` tells how far that is (see Progress.report).
        """
        report: dict[str, Any] = {
            "status": "ready" if self.is_ready else "not ready",
            "phase": self.phase,
            "phase_seconds": round(time.monotonic() - self.since, 1),
            "progress": round(self.progress(), 2),
            "model": self.model,
            "engine": self.engine,
            "engine_reason": self.reason,
        }
        weights = self.weights.report() if self.phase == PREPARING else None
        fit = self.fit and {self.fit.device: asdict(self.fit) | {"total_mib": self.fit.total_mib}}
        state = self.on_demand and self.on_demand.state(self.phase)
        extra: dict[str, Any] = {"prompt": self.prompt, "probe": self.probe, "error": self.error}
        extra |= {"weights": weights, "state": state}
        extra |= {"image_tokens": self.image_tokens and list(self.image_tokens)} | (fit or {})
        return report | {key: value for key, value in extra.items() if value is not None}


@dataclass
class OnDemand:
    """What readiness knows besides where models are loaded on demand.

    is_checked: whether the weights were found complete, so that a request may wait for them; times: when each phase of a
    wake began, and when the weights were loaded; is_called: whether a request waits; is_elder_there: whether the process that
    had the model before is still at its last answers.
    """

    is_checked: bool = False
    times: list[tuple[str, float]] = field(default_factory=list)
    is_called: Callable[[], bool] = lambda: False
    is_elder_there: Callable[[], bool] = lambda: False

    def takes(self, phase: str) -> bool:
        """Whether requests are taken in a phase in which the model is not loaded."""
        return self.is_checked and (phase == ASLEEP or phase in PROGRESS)

    def note(self, phase: str, when: float) -> None:
        """A phase has begun."""
        self.times.append((phase, when))

    def state(self, phase: str) -> str:
        """asleep, waking, ready or draining, or the phase where it is none of these."""
        state = ON_DEMAND_STATES.get(phase, phase)
        if not self.is_checked or state != "asleep":
            return state if self.is_checked else phase
        if self.is_elder_there():
            return "draining"
        return "waking" if self.is_called() else state


def probe_messages(image: Image.Image, question: str) -> list[dict[str, Any]]:
    """Chat messages that ask a question about a PIL image."""
    return [user_message(question, data_url(image))]
