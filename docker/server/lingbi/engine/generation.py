"""Answers from lmdeploy's engine: encodes images, holds engine instances, and frees them when clients leave.

It replaces lmdeploy's AsyncEngine.generate, which leaks an instance when a stream is closed, cancels on the event loop,
polls for instances, and reports wrong lengths (docs/server.md).
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lmdeploy.messages import EngineGenerationConfig

from lingbi.api_errors import EngineFault
from lingbi.engine.answers import Answer
from lingbi.engine.background import Background
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.vocabulary import Vocabulary
from lingbi.engine.places import Places
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
from lingbi.heartbeat import Vitals
from lingbi.turns import NOBODY, Asker, reserve_of

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
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
        kind: Callable[..., Answer] | None = None,
    ) -> Answer:
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
