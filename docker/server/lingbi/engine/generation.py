"""Answers from lmdeploy's engine: encodes images, holds engine instances, and frees them when clients leave.

It replaces lmdeploy's AsyncEngine.generate, which leaks an instance when a stream is closed, cancels on the event loop,
polls for instances, and reports wrong lengths (docs/server.md).
"""

import asyncio
import copy
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmdeploy.messages import EngineGenerationConfig
from lmdeploy.tokenizer import DetokenizeState

from lingbi.api_errors import EngineFault
from lingbi.engine.progress import PromptProgress
from lingbi.engine.prompts import (
    Draft,
    Prompt,
    answer_room,
    assemble,
    check_characters,
    plain,
    render,
    template_tokens,
    tokenise,
)
from lingbi.engine.sessions import Sessions
from lingbi.engine.stop_words import StopWords
from lingbi.heartbeat import Vitals

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
CANCEL_AGAIN_S = 1.0  # the engine ignores a cancellation that arrives before it has begun
ENCODER_REQUESTS = 16  # requests whose decoded images are in memory at once


@dataclass
class Step:
    """The next part of an answer: its new text and tokens, and the finish reason if it ended.

    prompt: the progress of the prompt, in steps before the first token.
    """

    text: str
    token_ids: list[int]
    logprobs: list[dict[int, float]] | None = None
    finish_reason: str | None = None
    prompt: PromptProgress | None = None


class Generator:
    """The engine's instances, shared by all requests of this worker."""

    def __init__(self, engine: Any, running: int, vitals: Vitals, kept_sessions: int = 0):
        self.engine, self.vitals = engine, vitals
        vitals.encoder = engine.vl_encoder.pulse
        self.tokenizer, self.form, self.session_len = engine.tokenizer, engine.prompt_form, engine.session_len
        # The instance that answered last is used next: an instance's first answer starts 2 ms later (docs/performance).
        self.free = list(itertools.islice(engine.gens_set, running))
        self.size = len(self.free)
        self.runs: set[Answer] = set()
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self.sessions = Sessions(kept_sessions)
        self.encoding = asyncio.Semaphore(ENCODER_REQUESTS)
        self.cancelling = ThreadPoolExecutor(self.size, "cancel")
        self._closing: set[asyncio.Task[None]] = set()

    def prompt_facts(self) -> dict[str, Any]:
        """The form of prompts, and the tokens that it puts around one image and a question."""
        return {"form": self.form.name, "template_tokens": template_tokens(self.form, self.tokenizer)}

    async def draft(self, messages: Sequence[Any]) -> Draft:
        """The text of chat messages as tokens. Raises TooLong for text that leaves no room, before an image is fetched."""
        text = render(messages, self.form)
        check_characters(text, self.session_len)
        stretches = await tokenise(text, self.tokenizer, self.form.starts_after_images)
        answer_room(sum(map(len, stretches)), None, self.session_len)
        return Draft(stretches)

    async def text_prompt(self, text: str) -> Prompt:
        """The prompt of a text that the model continues."""
        check_characters(text, self.session_len)
        return assemble(await tokenise(plain(text), self.tokenizer, starts_after_images=False), [])

    async def encode(self, images: list[Any], is_fresh: bool = False) -> "list[Tensor]":
        """Features of images, as tensors [tokens, hidden]; is_fresh: encode them again even if they are cached.

        Raises EngineFault, which fails this request only.
        """
        try:
            return await self.engine.vl_encoder.encode(images, is_fresh)
        except ValueError as error:
            log.exception("a picture could not be encoded")
            raise EngineFault(str(error), reason="encoder") from None

    async def start(
        self, prompt: Prompt, config: EngineGenerationConfig, stop: Iterable[str] = (), is_repeatable: bool = False
    ) -> "Answer":
        """Wait for an engine instance and start an answer on it; the caller must close the answer.

        is_repeatable: the same request must give the same sampled answer, so it starts a new session.
        """
        instance = self.free.pop() if self.free else await self._wait_free()
        return Answer(self, instance, prompt, config, stop, is_repeatable)

    async def prime(self) -> None:
        """Fill the prefix cache with sessions that hold the prompt form's own words, for the first prompts that arrive.

        Raises EngineFault.
        """
        text = self.form.write([dict(role="user", content="")])
        prompt = assemble(await tokenise(text, self.tokenizer, self.form.starts_after_images), [])
        # One after the other: many at once would take memory that a server with little traffic never needs.
        for _ in range(self.sessions.limit - len(self.sessions)):
            answer = await self.start(prompt, EngineGenerationConfig(max_new_tokens=1), is_repeatable=True)
            try:
                async for _ in answer:
                    log.debug("session %s holds the template's words", answer.place.session_id)
            finally:
                answer.close()
            await answer.task

    async def _wait_free(self) -> Any:
        place: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give_back(place.result())
            raise

    def give_back(self, instance: Any) -> None:
        """Pass an instance whose answer has ended to the next request that waits."""
        while self.waiting:
            place = self.waiting.popleft()
            if not place.done():
                place.set_result(instance)
                return
        self.free.append(instance)

    def finish(self, task: asyncio.Task[None]) -> None:
        """Hold a reference to a task until it is done, because asyncio only keeps a weak one."""
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def cached_tokens(self) -> int:
        """Tokens that running answers hold in the KV cache."""
        return sum(run.held_tokens for run in self.runs)


@dataclass
class Progress:
    """The newest output of the engine; each output holds the whole answer so far, so older ones are dropped.

    prompt: the progress of the prompt, until it has been passed on.
    """

    output: Any = None
    prompt: PromptProgress | None = None
    error: Exception | None = None
    is_done: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Answer:
    """An answer being generated. Iterate over it once, and always `close` it at the end."""

    def __init__(
        self,
        generator: Generator,
        instance: Any,
        prompt: Prompt,
        config: EngineGenerationConfig,
        stop: Iterable[str],
        is_repeatable: bool,
    ):
        self.generator, self.instance, self.prompt = generator, instance, prompt
        self.config = copy.copy(config)
        self.stop_words = StopWords(stop)
        self.place = generator.sessions.take(prompt, may_go_on=not is_repeatable)
        self.is_cancelled = False
        self.progress = Progress()
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        generator.runs.add(self)
        self.task = asyncio.create_task(self._follow())

    @property
    def held_tokens(self) -> int:
        return len(self.prompt.ids) + len(self.token_ids)

    async def _follow(self) -> None:
        """Read the engine's output until it ends, even if the client has left."""
        progress, pulse = self.progress, self.generator.vitals.model
        try:
            with pulse.working():
                async for output in self.instance.async_stream_infer(
                    self.place.session_id,
                    **self.prompt.inputs(self.place.step),
                    gen_config=self.config,
                    stream_output=True,
                    sequence_start=self.place.step == 0,
                    sequence_end=self.generator.sessions.limit == 0,
                    with_progress=True,
                ):
                    pulse.beat()
                    if isinstance(output, PromptProgress):
                        progress.prompt = output
                    else:
                        progress.output, progress.prompt = output, None
                    progress.changed.set()
        except Exception as error:  # whatever the engine raises fails this request only
            log.exception("the engine failed on session %s", self.place.session_id)
            progress.error = error
        finally:
            progress.is_done = True
            progress.changed.set()
            answered = len(progress.output.token_ids) if progress.output else 0
            tokens = 0 if progress.error else len(self.prompt.ids) + answered
            is_whole = not self.is_cancelled and progress.error is None and progress.output is not None
            self.generator.sessions.keep(self.place, self.prompt, is_whole, tokens)
            self.generator.runs.discard(self)
            self.generator.give_back(self.instance)

    async def __aiter__(self) -> AsyncIterator[Step]:
        """Yield Steps; the last one has a finish_reason. Raises EngineFault."""
        state = DetokenizeState()
        while self.finish_reason is None:
            await self.progress.changed.wait()
            self.progress.changed.clear()
            if self.progress.error:
                raise EngineFault("the engine failed on this request; the server's log has the details")
            is_done, output = self.progress.is_done, self.progress.output
            if self.progress.prompt:
                told, self.progress.prompt = self.progress.prompt, None
                yield Step("", [], prompt=told)
                continue
            seen = len(self.token_ids)
            new_ids = output.token_ids[seen : self.config.max_new_tokens] if output else []
            if not new_ids and not is_done:
                continue
            self.token_ids += new_ids
            text = ""
            if new_ids:
                text, state = self.generator.tokenizer.detokenize_incrementally(
                    self.token_ids, state, skip_special_tokens=self.config.skip_special_tokens
                )
            text, is_stopped = self.stop_words.feed(text, is_done)
            self.finish_reason = self._why_ended(is_done, is_stopped)
            logprobs = output.logprobs[seen : seen + len(new_ids)] if output and output.logprobs else None
            yield Step(text, new_ids, logprobs, self.finish_reason)

    def _why_ended(self, is_done: bool, is_stopped: bool) -> str | None:
        if is_stopped:
            return "stop"
        if len(self.token_ids) >= self.config.max_new_tokens:
            return "length"
        return "stop" if is_done else None

    def close(self) -> None:
        """Cancel the answer unless it is complete, to free its engine instance; returns at once."""
        ends_itself = self.finish_reason == "length"
        if not self.progress.is_done and not ends_itself:
            self.is_cancelled = True
            self.generator.finish(asyncio.create_task(self._cancel()))

    async def _cancel(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.task.done():
            try:
                await loop.run_in_executor(self.generator.cancelling, self.instance.cancel, self.place.session_id)
            except Exception:  # the engine may fail for a session that is just ending; retry until it has ended
                log.warning("cancelling session %s failed", self.place.session_id, exc_info=True)
            await asyncio.wait({self.task}, timeout=CANCEL_AGAIN_S)
