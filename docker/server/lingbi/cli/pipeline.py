"""scripts/pipeline: describe pictures, folders of pictures or URLs, to text or JSON lines.

A row holds what lmdeploy's Response holds: text, input_token_len, generate_token_len, finish_reason. An image that
cannot be used gets the reason in its row and stops nothing. An interrupted run continues after the rows that it wrote.
Rows are UTF-8, whatever the locale.
"""

import argparse
import asyncio
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image
from tqdm import tqdm

from lingbi import planner
from lingbi.cli.rows import FORMATS, Row, Rows
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.images.sources import Sources, find_sources, load_source
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import TURBOMIND, find_gpus
from lingbi.model.host_memory import available_mib
from lingbi.model.resources import Resources
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds
    from lingbi.http.protocol.requests import ChatRequest

PROMPT = "请描述图中内容"
CPU_BATCH = 8
COUNTS = ("input_token_len", "generate_token_len", "finish_reason")
LOADERS = 8
Loaded: TypeAlias = Image.Image | Exception  # an image, or why there is none
Batch: TypeAlias = list[tuple[str, "Future[Loaded]"]]  # sources, and what is being loaded from them


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all images answered, 1 some failed, 2 configuration, 3 the model did not load, 130 interrupted."""
    write_utf8()
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("lingbi").setLevel("INFO")
    warnings.filterwarnings("ignore")
    options = parse(arguments)
    try:
        options.prompt = as_utf8(options.prompt)
        with own_temporary_folder():
            failed = describe_all(options, settings_of(options))
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 1 if failed else 0


def write_utf8() -> None:
    """Make standard output and standard error UTF-8; what is not text in UTF-8 is shown escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def as_utf8(prompt: str) -> str:
    """A prompt from the command line, read as UTF-8 whatever the locale. Raises ConfigurationError."""
    try:
        return os.fsencode(prompt).decode("utf-8")
    except UnicodeError:
        raise ConfigurationError(f"--prompt {prompt[:50]!r} is not UTF-8; write it in UTF-8") from None


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/pipeline", description=__doc__.split("\n")[0].split(": ")[1])
    parser.add_argument("source", nargs="+", help="picture, folder (its pictures, and its folders'), or http(s) URL")
    parser.add_argument("--prompt", default=PROMPT, help=f"question asked about each picture (default {PROMPT})")
    parser.add_argument("--model", help="folder, vl-7b, 7b, 4khd-7b, vl-1_8b, ModelScope id, demo, or auto (default)")
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    parser.add_argument("--to", type=Path, help="file for the rows (default: the terminal, without resuming)")
    parser.add_argument("--format", choices=tuple(FORMATS), help="default: jsonl, or text where --to ends in .txt")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest answer (default 512)")
    parser.add_argument(
        "--batch", type=int, help=f"pictures asked at once (default: 64 on a GPU, {CPU_BATCH} on the CPU)"
    )
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> Settings:
    """The environment's settings and the command line's; this process is the only worker."""
    settings = load_settings(model=options.model, engine=options.engine)
    return settings.model_copy(update={"models_dir": settings.models_dir.absolute(), "workers": 1})


def describe_all(options: argparse.Namespace, settings: Settings) -> int:
    """Write a row for every source; returns how many have an error in place of an answer."""
    rows = Rows(options.to, options.format, options.prompt)
    sources = find_sources(options.source)
    todo = [source for source in sources.names if source not in rows.done]
    tell_left_out(sources, len(sources.names) - len(todo), options.to)
    if not todo:
        return 0
    describer = Describer(options, settings)
    failed = 0
    with rows.begin(todo), progress_bar(len(sources.names), len(todo)) as bar:
        for row in describer.rows(todo):
            rows.write(row)
            failed += "error" in row
            bar.update()
    print(f"{len(todo) - failed} answered, {failed} failed", file=sys.stderr)
    return failed


def tell_left_out(sources: Sources, answered: int, file: Path) -> None:
    """Say which sources are not asked, and why."""
    if sources.passed_over:
        print(f"{sources.passed_over} side file(s) passed over, such as ._* of macOS and thumbnails", file=sys.stderr)
    if answered:
        print(f"{answered} of {len(sources.names)} are answered in {file} already", file=sys.stderr)


def progress_bar(images: int, todo: int) -> "tqdm[None]":
    """A bar over all images, which begins behind the answered ones; none where standard error is not a terminal."""
    return tqdm(total=images, initial=images - todo, unit="picture", disable=None)


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

    def rows(self, sources: list[str]) -> Iterator[Row]:
        """The rows of sources, in order; the next batch's images load while one is answered."""
        left = iter(sources)
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
        from lingbi.engine.prompts import answer_room
        from lingbi.http.sampling_options import engine_options

        generator = self.generator
        draft = await generator.draft(question.turns)
        prompt = draft.filled(await generator.encode([image]))
        room = answer_room(len(prompt.ids), question.max_tokens, generator.session_len)
        answer = await generator.start(prompt, engine_options(question, room, generator.engine.stop_words, None))
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
    choice, found = planner.choose(settings, gpus)
    ensure(found, settings, Progress())
    placement = planner.place(choice, found, settings, Resources(gpus, available_mib()))
    (fit,) = placement.fits
    return EngineNeeds(fetched(placement), settings, fit)


def fetched(placement: planner.Placement) -> ModelFolder:
    """The folder of a model whose weights were made sure of."""
    if isinstance(placement.model, ModelFolder):
        return placement.model
    raise ConfigurationError(f"{placement.found.path} still holds no model after the fetch; run scripts/fetch")


def _fields(answer: Row | BaseException) -> Row:
    return {"error": str(answer) or type(answer).__name__} if isinstance(answer, BaseException) else answer


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the engine's threads never return
