"""One answer of the engine: started, followed to its end, passed on step by step, and cancelled when its client leaves."""

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from lmdeploy.messages import EngineGenerationConfig
from lmdeploy.tokenizer import DetokenizeState

from lingbi.api_errors import EngineFault, Refusal
from lingbi.engine.background import Background
from lingbi.engine.places import Places
from lingbi.engine.progress import Progress, PromptProgress, Step
from lingbi.engine.prompts import Prompt
from lingbi.engine.sessions import Sessions
from lingbi.engine.stop_words import StopWords
from lingbi.heartbeat import Vitals
from lingbi.turns import Asker

log = logging.getLogger(__name__)
CANCEL_AGAIN_S = 1.0  # the engine ignores a cancellation that arrives before it has begun
LOOK_S = 0.01  # whether a prompt of the background may go on by now


class AnswerHost(Protocol):
    """What all answers of a worker share (generation.py)."""

    places: Places
    sessions: Sessions
    runs: "set[Answer]"
    vitals: Vitals
    tokenizer: Any
    session_len: int
    cancelling: ThreadPoolExecutor

    def finish(self, task: asyncio.Task[None]) -> None:
        """Hold a reference to a task until it is done."""


class Answer:
    """An answer being generated. Iterate over it once, and always `close` it at the end."""

    def __init__(
        self,
        generator: AnswerHost,
        instance: Any,
        prompt: Prompt,
        config: EngineGenerationConfig,
        stop: Iterable[str],
        is_repeatable: bool,
        asker: Asker,
    ):
        self.generator, self.instance, self.prompt, self.asker = generator, instance, prompt, asker
        self.config = copy.copy(config)
        self.stop_words = StopWords(stop)
        self.place = generator.sessions.take(prompt, may_go_on=not is_repeatable)
        self.is_cancelled = False
        self._is_open = False  # whether the engine knows the session and goes on knowing it
        self._cancelling: asyncio.Future[None] | None = None  # a call of the engine
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
                await self._run_and_end()
        except Refusal as refusal:
            progress.error = refusal
        except Exception as error:  # whatever the engine raises fails this request only
            log.exception("the engine failed on session %s", self.place.session_id)
            progress.error = error
        finally:
            progress.is_done = True
            progress.changed.set()
            if self._cancelling:  # which would end the answer that has the session next
                await asyncio.wait({self._cancelling})
            answered = len(progress.output.token_ids) if progress.output else 0
            tokens = 0 if progress.error else len(self.prompt.ids) + answered
            is_whole = not self.is_cancelled and progress.error is None and self._has_held_prompt()
            self.generator.sessions.keep(self.place, self.prompt, is_whole, tokens)
            self.generator.runs.discard(self)
            self.generator.places.give_back(self.instance, self.asker)

    async def _run_and_end(self) -> None:
        try:
            await self._run()
        finally:
            if self._is_open and self.generator.sessions.limit == 0:
                await self._end_session()

    async def _run(self) -> None:
        """Pass on what the engine says, until it ends."""
        progress, pulse = self.progress, self.generator.vitals.model
        held = await self._compute_in_parts()
        if self.is_cancelled and held > self.place.step:
            return
        async for output in self._infer(self.prompt, held, self.config):
            pulse.beat()
            if isinstance(output, PromptProgress):
                self._tell(output.after(held - self.place.step))
            else:
                progress.output, progress.prompt = output, None
                progress.changed.set()

    async def _compute_in_parts(self) -> int:
        """In the background, have the engine compute all of the prompt but its last part while somebody asks, and stand aside
        between the parts while others wait for their first token. Returns how many tokens the session holds then."""
        held, background = self.place.step, self.generator.places.background
        while self.asker.is_background and background.parts(len(self.prompt.ids) - held) and not self.is_cancelled:
            part = self.prompt.until(held + background.rules.part)
            async for _ in self._infer(part, held, self._config(max_new_tokens=1, logprobs=None), sequence_end=False):
                self.generator.vitals.model.beat()
            held = len(part.ids)
            self._tell(PromptProgress(held - self.place.step, len(self.prompt.ids) - self.place.step))
            await self._stand_aside(background)
        return held

    async def _stand_aside(self, background: Background) -> None:
        since = background.clock()
        while not (background.may_go_on or self.is_cancelled):
            await asyncio.sleep(LOOK_S)
        background.go_on(self.instance, background.clock() - since)

    def _tell(self, progress: PromptProgress) -> None:
        """Pass the progress of the prompt on."""
        self.progress.prompt = progress
        self.progress.changed.set()

    async def _end_session(self) -> None:
        """Have the engine forget the session, since none is kept. What a cancelled one holds is not known: it begins anew."""
        begun = Prompt(self.prompt.ids[:1])
        async for _ in self._infer(begun, 0, self._config(max_new_tokens=1), sequence_end=True):
            log.debug("session %s ends", self.place.session_id)

    def _config(self, **changes: Any) -> EngineGenerationConfig:
        config = copy.copy(self.config)
        for name, value in changes.items():
            setattr(config, name, value)
        return config

    def _has_held_prompt(self) -> bool:
        """Whether the session holds the whole prompt, as far as is known from what the engine said."""
        return self.progress.output is not None

    def _infer(self, prompt: Prompt, step: int, config: EngineGenerationConfig, **options: Any) -> AsyncIterator[Any]:
        """The engine's outputs for a prompt, of which the session holds the first `step` tokens."""
        asked = {"sequence_end": self.generator.sessions.limit == 0} | options
        self._is_open = not asked["sequence_end"]
        outputs: AsyncIterator[Any] = self.instance.async_stream_infer(
            self.place.session_id,
            **prompt.inputs(step),
            gen_config=config,
            stream_output=True,
            sequence_start=step == 0,
            with_progress=True,
            asker=self.asker,
            **asked,
        )
        return outputs

    async def __aiter__(self) -> AsyncIterator[Step]:
        """Yield Steps; the last one has a finish_reason. Raises Refusal."""
        state = DetokenizeState()
        while self.finish_reason is None:
            await self.progress.changed.wait()
            self.progress.changed.clear()
            if self.progress.error:
                raise self._refusal(self.progress.error)
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
                text, state = self._text(new_ids, state)
            text, is_stopped = self.stop_words.feed(text, is_done)
            self.finish_reason = self._why_ended(is_done, is_stopped)
            logprobs = output.logprobs[seen : seen + len(new_ids)] if output and output.logprobs else None
            yield Step(text, new_ids, logprobs, self.finish_reason)

    def _text(self, new_ids: list[int], state: DetokenizeState) -> tuple[str, DetokenizeState]:
        """The text of new tokens, which are the last of token_ids already."""
        text, state = self.generator.tokenizer.detokenize_incrementally(
            self.token_ids, state, skip_special_tokens=self.config.skip_special_tokens
        )
        return text, state

    @staticmethod
    def _refusal(error: Exception) -> Refusal:
        """What a client is told when this error ended the answer."""
        if isinstance(error, Refusal):
            return error
        return EngineFault("the engine failed on this request; the server's log has the details")

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
        while not self.progress.is_done:
            cancel = self.instance.cancel
            self._cancelling = loop.run_in_executor(self.generator.cancelling, cancel, self.place.session_id)
            try:
                await self._cancelling
            except Exception:  # the engine may fail for a session that is just ending; retry until it has ended
                log.warning("cancelling session %s failed", self.place.session_id, exc_info=True)
            await asyncio.wait({self.task}, timeout=CANCEL_AGAIN_S)
