"""scripts/pipeline: describe pictures, folders of pictures or URLs, to text or JSON lines.

A row holds what lmdeploy's Response holds: text, input_token_len, generate_token_len,
finish_reason. A picture that cannot be used has its reason in its row and ends nothing; a run that
was interrupted goes on after the rows that are there.
"""

import argparse
import asyncio
import logging
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from lingbi import planner
from lingbi.cli.rows import FORMATS, Rows
from lingbi.errors import LingbiError
from lingbi.images.sources import find_sources, load_source
from lingbi.model.gpus import TURBOMIND, find_gpus
from lingbi.model.host_memory import available_mib
from lingbi.model.resources import Resources
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure

PROMPT = "请描述图中内容"
CPU_BATCH = 8
COUNTS = ("input_token_len", "generate_token_len", "finish_reason")
LOADERS = 8


def main(arguments=None) -> int:
    """Exit status: 0 every picture answered, 1 some could not be, 2 configuration, 3 no model, 130 interrupted."""
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("lingbi").setLevel("INFO")
    warnings.filterwarnings("ignore")
    options = parse(arguments)
    try:
        with own_temporary_folder():
            failed = describe_all(options, settings_of(options))
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 1 if failed else 0


def parse(arguments=None) -> argparse.Namespace:
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
    todo = [source for source in sources if source not in rows.done]
    if len(todo) < len(sources):
        print(f"{len(sources) - len(todo)} of {len(sources)} are answered in {options.to} already", file=sys.stderr)
    if not todo:
        return 0
    describer = Describer(options, settings)
    failed = 0
    with (
        rows.begin(todo),
        tqdm(total=len(sources), initial=len(sources) - len(todo), unit="picture", disable=None) as bar,
    ):
        for row in describer.rows(todo):
            rows.write(row)
            failed += "error" in row
            bar.update()
    print(f"{len(todo) - failed} answered, {failed} failed", file=sys.stderr)
    return failed


class Describer:
    """The loaded model, and the question."""

    def __init__(self, options: argparse.Namespace, settings: Settings):
        from lingbi.engine.build import build_engine
        from lingbi.engine.generation import Generator
        from lingbi.engine.local import EngineNeeds
        from lingbi.heartbeat import Vitals
        from lingbi.http.service import image_rules

        self.image_rules = image_rules(settings)
        gpus = find_gpus()
        choice, found = planner.choose(settings, gpus)
        ensure(found, settings, Progress())
        placement = planner.place(choice, found, settings, Resources(gpus, available_mib()))
        (fit,) = placement.fits
        self.options = options
        self.batch = options.batch or (fit.max_batch_size if choice.engine == TURBOMIND else CPU_BATCH)
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        engine = build_engine(EngineNeeds(placement.model, settings, fit))
        self.generator = Generator(engine, self.batch, Vitals())

    def rows(self, sources: list):
        """Rows of sources, in order; pictures of the next batch load while one is answered."""
        left = iter(sources)
        with ThreadPoolExecutor(LOADERS, thread_name_prefix="pictures") as pool:
            batch = self._load(pool, left)
            while batch:
                following = self._load(pool, left)
                yield from self._answer([(source, job.result()) for source, job in batch])
                batch = following

    def _load(self, pool, left) -> list:
        return [(source, pool.submit(load_source, source, self.image_rules)) for source in islice(left, self.batch)]

    def _answer(self, batch: list):
        """Rows of one batch of (source, picture or the error in its place)."""
        images = [image for _, image in batch if not isinstance(image, Exception)]
        answers = iter(self._ask(images))  # in order
        for source, image in batch:
            answer = image if isinstance(image, Exception) else next(answers)
            yield {"source": source, "prompt": self.options.prompt} | _fields(answer)

    def _ask(self, images: list) -> list:
        """The answer's fields, or the exception in their place, for every picture."""
        return self.loop.run_until_complete(self._ask_all(images)) if images else []

    async def _ask_all(self, images: list) -> list:
        from lingbi.http.protocol.requests import ChatRequest
        from lingbi.images.messages import user_message

        # Which picture it is does not matter to the prompt: it is decoded already.
        message = user_message(self.options.prompt, "")
        question = ChatRequest(model="", messages=[message], temperature=0, max_tokens=self.options.max_tokens)
        return await asyncio.gather(*(self._ask_one(question, image) for image in images), return_exceptions=True)

    async def _ask_one(self, question, image) -> dict:
        """The greedy answer to the same question about a picture, on the way that a server's requests take."""
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


def _fields(answer) -> dict:
    return {"error": str(answer) or type(answer).__name__} if isinstance(answer, Exception) else answer


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the engine's threads never return
