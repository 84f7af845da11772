"""Answers from lmdeploy's engine: encodes images, holds engine instances, and frees them when clients leave.

It replaces lmdeploy's AsyncEngine.generate, which leaks an instance when a stream is closed, cancels on the event loop,
polls for instances, and reports wrong lengths (docs/server.md).
"""

import asyncio
import copy
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lmdeploy.messages import EngineGenerationConfig
from lmdeploy.tokenizer import DetokenizeState

from lingbi.api_errors import EngineFault, Refusal
from lingbi.engine.background import Background
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.vocabulary import Vocabulary
from lingbi.engine.places import Places
from lingbi.engine.progress import Progress, PromptProgress, Step
from lingbi.engine.prompts import (
    Draft,
    Prompt,
    answer_room,
    assemble,
    characters_of,
    check_characters,
    check_tokens,
    encode,
    parts_of,
    plain,
    render,
    template_tokens,
)
from lingbi.engine.sessions import Sessions
from lingbi.engine.stop_words import StopWords
from lingbi.heartbeat import Vitals
from lingbi.turns import NOBODY, Asker, reserve_of

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
CANCEL_AGAIN_S = 1.0  # the engine ignores a cancellation that arrives before it has begun
INLINE_CHARACTERS, INLINE_PARTS = 1024, 64  # of a prompt that is tokenised at once; a thread takes longer ones


class Generator:
    """The engine's instances, shared by all requests of this worker."""

    def __init__(
        self,
        engine: Any,
        running: int,
        vitals: Vitals,
        kept_sessions: int = 0,
        background: Background | None = None,
    ):
        self.engine, self.vitals = engine, vitals
        vitals.encoder = engine.vl_encoder.pulse
        self.tokenizer, self.form, self.session_len = engine.tokenizer, engine.prompt_form, engine.session_len
        instances = itertools.islice(engine.gens_set, running + reserve_of(running))
        self.places = Places(instances, running, background)
        self.size = self.places.size
        self.runs: set[Answer] = set()
        self.sessions = Sessions(kept_sessions)
        self.cancelling = ThreadPoolExecutor(len(self.places.free), "cancel")
        self.tokenising = ThreadPoolExecutor(1, "tokenise")
        self.grammars = Grammars(lambda: Vocabulary(self.tokenizer, engine.stop_words))
        self._closing: set[asyncio.Task[None]] = set()

    def prompt_facts(self) -> dict[str, Any]:
        """The form of prompts, and the tokens that it puts around one image and a question."""
        return {"form": self.form.name, "template_tokens": template_tokens(self.form, self.tokenizer)}

    async def draft(self, messages: Sequence[Any]) -> Draft:
        """The text of chat messages as tokens. Raises TooLong for text that leaves no room, before an image is fetched."""
        characters = characters_of(messages)
        check_characters(characters, self.session_len)
        is_short = characters <= INLINE_CHARACTERS and parts_of(messages) <= INLINE_PARTS
        stretches = await self._tokens(lambda: render(messages, self.form), is_short, self.form.starts_after_images)
        answer_room(sum(map(len, stretches)), None, self.session_len)
        return Draft(stretches)

    async def text_prompt(self, text: str) -> Prompt:
        """The prompt of a text that the model continues."""
        check_characters(len(text), self.session_len)
        stretches = await self._tokens(lambda: plain(text), len(text) <= INLINE_CHARACTERS, starts_after_images=False)
        return assemble(stretches, [])

    async def _tokens(self, write: Callable[[], str], is_short: bool, starts_after_images: bool) -> list[list[int]]:
        """The tokens of the text that `write` writes; both is done in a thread where it is not short."""

        def tokens() -> list[list[int]]:
            text = write()
            check_tokens(text, self.tokenizer, self.session_len)
            return encode(text, self.tokenizer, starts_after_images)

        return tokens() if is_short else await asyncio.get_running_loop().run_in_executor(self.tokenising, tokens)

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
        self,
        prompt: Prompt,
        config: EngineGenerationConfig,
        stop: Iterable[str] = (),
        is_repeatable: bool = False,
        asker: Asker = NOBODY,
        may_be_refused: bool = False,
        kind: "Callable[..., Answer] | None" = None,
    ) -> "Answer":
        """Wait for an engine instance and start an answer on it; the caller must close the answer.

        is_repeatable: the same request must give the same sampled answer, so it starts a new session; asker: who shares
        the instances with others; may_be_refused: while it waits, for the sake of others (see places.py); kind: makes the
        answer, where the model is bound to a form. Raises Refusal.
        """
        instance = await self.places.wait(asker, may_be_refused)
        return (kind or Answer)(self, instance, prompt, config, stop, is_repeatable, asker)

    async def prime(self) -> None:
        """Fill the prefix cache with sessions that hold the prompt form's own words, for the first prompts that arrive.

        Raises EngineFault.
        """
        text = self.form.write([dict(role="user", content="")])
        prompt = assemble(encode(text, self.tokenizer, self.form.starts_after_images), [])
        # One after the other: many at once would take memory that a server with little traffic never needs.
        for _ in range(self.sessions.limit - len(self.sessions)):
            answer = await self.start(prompt, EngineGenerationConfig(max_new_tokens=1), is_repeatable=True)
            try:
                async for _ in answer:
                    log.debug("session %s holds the template's words", answer.place.session_id)
            finally:
                answer.close()
            await answer.task

    def finish(self, task: asyncio.Task[None]) -> None:
        """Hold a reference to a task until it is done, because asyncio only keeps a weak one."""
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def cached_tokens(self) -> int:
        """Tokens that running answers hold in the KV cache."""
        return sum(run.held_tokens for run in self.runs)


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
        asker: Asker,
    ):
        self.generator, self.instance, self.prompt, self.asker = generator, instance, prompt, asker
        self.config = copy.copy(config)
        self.stop_words = StopWords(stop)
        self.place = generator.sessions.take(prompt, may_go_on=not is_repeatable)
        self.is_cancelled = False
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
                await self._run()
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

    async def _run(self) -> None:
        """Pass on what the engine says, until it ends."""
        progress, pulse = self.progress, self.generator.vitals.model
        async for output in self._infer(self.prompt, self.place.step, self.config):
            pulse.beat()
            if isinstance(output, PromptProgress):
                progress.prompt = output
            else:
                progress.output, progress.prompt = output, None
            progress.changed.set()

    def _has_held_prompt(self) -> bool:
        """Whether the session holds the whole prompt, as far as is known from what the engine said."""
        return self.progress.output is not None

    def _infer(self, prompt: Prompt, step: int, config: EngineGenerationConfig, **options: Any) -> AsyncIterator[Any]:
        """The engine's outputs for a prompt, of which the session holds the first `step` tokens."""
        asked = {"sequence_end": self.generator.sessions.limit == 0} | options
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
