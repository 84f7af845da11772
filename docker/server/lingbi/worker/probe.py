"""The real image question that makes a worker ready, and that the watchdog asks again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lingbi.engine.generation import Generator
from lingbi.engine.progress import PromptProgress
from lingbi.engine.prompts import Prompt
from lingbi.errors import StartError
from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.readiness import PROBE_QUESTION, probe_messages
from lingbi.http.sampling_options import engine_options
from lingbi.http.service import Service, chat_prompt
from lingbi.images import scenes
from lingbi.images.loader import ImageDoor, image_urls

PROBE_TOKENS = 32
PROBE_SCENE = scenes.Scene((scenes.Thing("red", "circle"),))


@dataclass(frozen=True)
class Answered:
    """A question and its greedy answer: the prompt, the answer's text and tokens, and the seconds that both took."""

    prompt: Prompt
    text: str
    token_ids: list[int]
    seconds: float


async def ask_greedily(
    generator: Generator,
    images: ImageDoor,
    messages: list[dict[str, Any]],
    tokens: int,
    on_prompt: Callable[[PromptProgress], None] = lambda progress: None,
) -> Answered:
    """Ask a question the way a request does, but with its images encoded anew.

    messages: as in the chat API; tokens: the most tokens of the answer; on_prompt: called as the prompt is computed.
    Raises the same errors as a request.
    """
    start = time.monotonic()
    request = ChatRequest(model="", messages=messages, temperature=0)
    prompt, _ = await chat_prompt(generator, images, request.turns, image_urls(request.turns), is_fresh=True)
    answer = await generator.start(prompt, engine_options(request, tokens, generator.engine.stop_words, None))
    text = ""
    try:
        async for step in answer:
            if step.prompt:
                on_prompt(step.prompt)
            text += step.text
    finally:
        answer.close()
    return Answered(prompt, text, answer.token_ids, time.monotonic() - start)


async def ask_probe(service: Service, is_demo: bool) -> dict[str, float]:
    """Ask the probe's question; returns the seconds that it took and the tokens of its answer.

    Raises StartError when the answer is empty or, from the demo model, wrong.
    """
    assert service.generator is not None  # the probe is asked once the model is loaded
    messages = probe_messages(scenes.draw(PROBE_SCENE), PROBE_QUESTION)
    on_prompt = service.readiness.probe_computed
    answered = await ask_greedily(service.generator, service.images, messages, PROBE_TOKENS, on_prompt)
    judge(answered, is_demo)
    service.vitals.prove()
    return {"seconds": round(answered.seconds, 3), "tokens": len(answered.token_ids)}


def judge(answered: Answered, is_demo: bool) -> None:
    """Raise StartError for an answer that is empty, or wrong where the right one is known."""
    if not answered.token_ids:
        raise StartError("the model gave no answer to the image question of the probe")
    fault = scenes.find_fault("things", PROBE_SCENE, answered.text) if is_demo else None
    if fault:
        raise StartError(f"the demo model answered the probe's image question wrongly: {fault}")
