"""How a worker is: its phase while it starts, and the picture question that makes it ready."""

import base64
import io
import time
from dataclasses import dataclass, field

from lingbi import scenes
from lingbi.errors import StartError
from lingbi.pictures import load_pictures
from lingbi.weights.progress import Progress

STARTING, LOADING, PROBING, READY, FAILED = "starting", "loading weights", "probing", "ready", "failed"
PREPARING = "preparing weights"
PROBE_TOKENS = 32
PROBE_QUESTION = "请描述图中内容"
PROBE_SCENE = scenes.Scene((scenes.Thing("red", "circle"),))


@dataclass
class Readiness:
    """What /ready tells; written by the loading thread, read by requests."""

    model: str
    engine: str
    reason: str
    phase: str = STARTING
    since: float = field(default_factory=time.monotonic)
    probe: dict | None = None
    error: str | None = None
    progress: Progress | None = None  # of fetching or checking weights

    @property
    def is_ready(self) -> bool:
        return self.phase == READY

    def enter(self, phase: str) -> None:
        self.phase, self.since = phase, time.monotonic()

    def report(self) -> dict:
        """The body of /ready: phase, seconds in it, model, engine and why, last probe, error,
        and while weights are fetched or checked the progress (see Progress.report)."""
        report = {
            "status": "ready" if self.is_ready else "not ready",
            "phase": self.phase,
            "phase_seconds": round(time.monotonic() - self.since, 1),
            "model": self.model,
            "engine": self.engine,
            "engine_reason": self.reason,
        }
        progress = self.progress.report() if self.progress and self.phase == PREPARING else None
        extra = {"probe": self.probe, "error": self.error, "progress": progress}
        return report | {key: value for key, value in extra.items() if value is not None}


def probe_messages(picture, question: str) -> list:
    """Chat messages that ask a question about a PIL picture."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return [
        {
            "role": "user",
            "content": [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}],
        }
    ]


async def ask_probe(engine, is_demo: bool, session_id: int) -> dict:
    """Ask the engine a real picture question, greedily.

    Returns {"seconds", "tokens"}; raises StartError when the answer is empty or, from the demo
    model, wrong.
    """
    from lmdeploy.messages import GenerationConfig

    messages = probe_messages(scenes.draw(PROBE_SCENE), PROBE_QUESTION)
    start = time.monotonic()
    await load_pictures(messages)
    answer, tokens = "", 0
    async for output in engine.generate(
        messages, session_id, gen_config=GenerationConfig(max_new_tokens=PROBE_TOKENS, top_k=1)
    ):
        answer += output.response
        tokens = output.generate_token_len
    if not tokens:
        raise StartError("the model gave no answer to the start-up picture question")
    fault = scenes.find_fault("things", PROBE_SCENE, answer) if is_demo else None
    if fault:
        raise StartError(f"the demo model answered the start-up picture question wrongly: {fault}")
    return {"seconds": round(time.monotonic() - start, 3), "tokens": tokens}
