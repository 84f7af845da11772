"""How a worker is: its phase, and the picture question that makes it ready and keeps it so."""

import time
from dataclasses import asdict, dataclass, field

from lingbi.engine.progress import PromptProgress
from lingbi.errors import StartError
from lingbi.images import scenes
from lingbi.images.messages import data_url, user_message
from lingbi.model.sizing import Fit
from lingbi.weights.progress import Progress

STARTING, PREPARING, PROBING = "starting", "preparing weights", "probing"
LOADING, LOADING_MODEL = "loading vision tower", "loading language model"
READY, FAILED, DRAINING, WEDGED, GPU_GONE = "ready", "failed", "draining", "not answering", "GPU gone"
PROGRESS = {STARTING: 0.0, PREPARING: 0.0, LOADING: 0.05, LOADING_MODEL: 0.4, PROBING: 0.95}
PROBE_TOKENS = 32
PROBE_QUESTION = "请描述图中内容"
PROBE_SCENE = scenes.Scene((scenes.Thing("red", "circle"),))


@dataclass
class Readiness:
    """What /ready tells; written by the loading thread and the watchdog, read by requests."""

    model: str
    engine: str
    reason: str
    phase: str = STARTING
    since: float = field(default_factory=time.monotonic)
    probe: dict | None = None
    error: str | None = None
    weights: Progress = field(default_factory=Progress)  # of fetching or checking them
    fit: Fit | None = None  # settings and memory on a GPU
    loaded: float = 0.0  # share of the language model that is on the GPU
    computed: float = 0.0  # share of the probe's prompt that a CPU has computed
    prompt: dict | None = None  # how prompts are made, as protocol.Prompts

    @property
    def is_ready(self) -> bool:
        return self.phase == READY

    def enter(self, phase: str, error: str | None = None) -> None:
        self.phase, self.since, self.error = phase, time.monotonic(), error

    def weights_loaded(self, done_bytes: int, all_bytes: int) -> None:
        """So much of the language model has been loaded."""
        self.loaded = done_bytes / all_bytes

    def probe_computed(self, prompt: PromptProgress) -> None:
        """So much of the probe's prompt has been computed."""
        self.computed = prompt.done_tokens / prompt.all_tokens

    def progress(self) -> float:
        """How far a start is, from 0 to 1."""
        begun = PROGRESS.get(self.phase, 1.0)
        if self.phase == LOADING_MODEL:
            return begun + (PROGRESS[PROBING] - begun) * self.loaded
        if self.phase == PROBING:
            return begun + (1.0 - begun) * self.computed
        return begun

    def report(self) -> dict:
        """The body of /ready: phase, seconds in it, progress of loading, model, engine and why, last probe, error;
        on a GPU `gpu`: the engine's settings there, and the memory that they take; `prompt`: how prompts are made.

        While weights are fetched or checked, `weights` tells how far that is (see Progress.report).
        """
        report = {
            "status": "ready" if self.is_ready else "not ready",
            "phase": self.phase,
            "phase_seconds": round(time.monotonic() - self.since, 1),
            "progress": round(self.progress(), 2),
            "model": self.model,
            "engine": self.engine,
            "engine_reason": self.reason,
        }
        weights = self.weights.report() if self.phase == PREPARING else None
        gpu = self.fit and asdict(self.fit) | {"total_mib": self.fit.total_mib}
        extra = {"gpu": gpu, "prompt": self.prompt, "probe": self.probe, "error": self.error, "weights": weights}
        return report | {key: value for key, value in extra.items() if value is not None}


def probe_messages(image, question: str) -> list:
    """Chat messages that ask a question about a PIL picture."""
    return [user_message(question, data_url(image))]


async def ask_probe(service, is_demo: bool) -> dict:
    """Ask the engine a real picture question, greedily, on the way that requests take.

    Returns {"seconds", "tokens"}; raises StartError when the answer is empty or, from the demo
    model, wrong.
    """
    from lingbi.http.protocol import ChatRequest
    from lingbi.http.sampling_options import engine_options
    from lingbi.images.loader import image_urls

    start = time.monotonic()
    messages = probe_messages(scenes.draw(PROBE_SCENE), PROBE_QUESTION)
    request = ChatRequest(model=service.readiness.model, messages=messages, temperature=0)
    generator = service.generator
    fetched = service.images.fetched(image_urls(request.messages))
    prompt = await generator.chat_prompt(request.messages, fetched, is_fresh=True)
    text = ""
    answer = await generator.start(prompt, engine_options(request, PROBE_TOKENS, generator.engine.stop_words, None))
    try:
        async for step in answer:
            if step.prompt:
                service.readiness.probe_computed(step.prompt)
            text += step.text
    finally:
        answer.close()
    _judge(text, len(answer.token_ids), is_demo)
    service.vitals.prove()
    return {"seconds": round(time.monotonic() - start, 3), "tokens": len(answer.token_ids)}


def _judge(text: str, tokens: int, is_demo: bool) -> None:
    if not tokens:
        raise StartError("the model gave no answer to the picture question of the probe")
    fault = scenes.find_fault("things", PROBE_SCENE, text) if is_demo else None
    if fault:
        raise StartError(f"the demo model answered the probe's picture question wrongly: {fault}")
