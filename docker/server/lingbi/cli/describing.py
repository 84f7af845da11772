"""Describes images with a model that this process loads itself: the next batch's images load while one is answered."""

import argparse
import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from lingbi import planner
from lingbi.api_errors import BadRequest
from lingbi.cli.rows import Row
from lingbi.errors import ConfigurationError
from lingbi.images.sources import load_source
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import TURBOMIND, find_gpus
from lingbi.model.host_memory import available_mib
from lingbi.model.resources import Resources
from lingbi.placement.seats import Placement
from lingbi.settings import Settings
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds
    from lingbi.http.protocol.requests import ChatRequest

CPU_BATCH = 8
COUNTS = ("input_token_len", "generate_token_len", "finish_reason")
LOADERS = 8
Loaded: TypeAlias = Image.Image | Exception  # an image, or why there is none
Batch: TypeAlias = list[tuple[str, "Future[Loaded]"]]  # sources, and what is being loaded from them


class Describer:
    """The loaded model, and the question that it is asked about every image."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        from lingbi.engine.build import build_engine
        from lingbi.engine.generation import Generator
        from lingbi.heartbeat import Vitals
        from lingbi.http.service import image_rules

        self.image_rules = image_rules(settings)
        needs = prepare(settings)
        self.options = options
        self.batch: int = options.batch or (needs.fit.max_batch_size if needs.engine == TURBOMIND else CPU_BATCH)
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.generator = Generator(build_engine(needs), self.batch, Vitals())
        self._check_form()

    def _check_form(self) -> None:
        """Raise ConfigurationError where answers cannot have the form that is asked for."""
        if not self.options.form:
            return
        try:
            self.loop.run_until_complete(self.generator.grammars.matcher(self.options.form))
        except BadRequest as refusal:
            raise ConfigurationError(f"--schema {self.options.schema}: {refusal}") from None

    def rows(self, left: Iterator[str]) -> Iterator[Row]:
        """The rows of sources, in order; the next batch's images load while one is answered."""
        with ThreadPoolExecutor(LOADERS, thread_name_prefix="pictures") as pool:
            batch = self._load(pool, left)
            while batch:
                following = self._load(pool, left)
                yield from self._answer([(source, job.result()) for source, job in batch])
                batch = following

    def _load(self, pool: ThreadPoolExecutor, left: Iterator[str]) -> Batch:
        return [(source, pool.submit(load_source, source, self.image_rules)) for source in islice(left, self.batch)]

    def _answer(self, batch: list[tuple[str, Loaded]]) -> Iterator[Row]:
        """The rows of one batch."""
        images = [image for _, image in batch if not isinstance(image, Exception)]
        answers = iter(self._ask(images))  # in order
        for source, image in batch:
            answer = image if isinstance(image, Exception) else next(answers)
            yield {"source": source, "prompt": self.options.prompt} | _fields(answer)

    def _ask(self, images: list[Image.Image]) -> list[Row | BaseException]:
        """For every image the fields of its answer, or the exception in their place."""
        return self.loop.run_until_complete(self._ask_all(images)) if images else []

    async def _ask_all(self, images: list[Image.Image]) -> list[Row | BaseException]:
        from lingbi.http.protocol.requests import ChatRequest
        from lingbi.images.messages import user_message

        # The image is decoded already, so the prompt only needs to know that there is one.
        message = user_message(self.options.prompt, "")
        question = ChatRequest.model_validate(
            {"model": "", "messages": [message], "temperature": 0, "max_tokens": self.options.max_tokens}
        )
        return await asyncio.gather(*(self._ask_one(question, image) for image in images), return_exceptions=True)

    async def _ask_one(self, question: "ChatRequest", image: Image.Image) -> Row:
        """The fields of the greedy answer about an image, which takes the same way as a request to the server."""
        from lingbi.engine.bound import BoundAnswer
        from lingbi.engine.prompts import answer_room
        from lingbi.http.sampling_options import engine_options

        generator = self.generator
        draft = await generator.draft(question.turns)
        prompt = draft.filled(await generator.encode([image]))
        room = answer_room(len(prompt.ids), question.max_tokens, generator.session_len)
        config = engine_options(question, room, generator.engine.stop_words, None)
        form = self.options.form
        kind = partial(BoundAnswer, matcher=await generator.grammars.matcher(form)) if form else None
        answer = await generator.start(prompt, config, kind=kind)
        try:
            text = "".join([step.text async for step in answer])
        finally:
            answer.close()
        counts = (len(prompt.ids), len(answer.token_ids), answer.finish_reason)
        return {"text": text} | dict(zip(COUNTS, counts, strict=True))


def prepare(settings: Settings) -> "EngineNeeds":
    """Choose engine and model for this machine and fetch the weights that are missing. Raises LingbiError."""
    from lingbi.engine.local import EngineNeeds

    gpus = find_gpus()
    choice, found, places = planner.choose_places(settings, gpus)
    ensure(found, settings, Progress())
    placement = planner.place(choice, found, settings, Resources(places, available_mib()))
    (fit,) = placement.fits
    return EngineNeeds(fetched(placement), settings, fit)


def fetched(placement: Placement) -> ModelFolder:
    """The folder of a model whose weights were made sure of."""
    if isinstance(placement.model, ModelFolder):
        return placement.model
    raise ConfigurationError(f"{placement.found.path} still holds no model after the fetch; run scripts/fetch")


def _fields(answer: Row | BaseException) -> Row:
    return {"error": str(answer) or type(answer).__name__} if isinstance(answer, BaseException) else answer
