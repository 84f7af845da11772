"""scripts/pipeline: describe pictures, folders of pictures or URLs, to text or JSON lines.

A row holds what lmdeploy's Response holds: text, input_token_len, generate_token_len, finish_reason. An image that
cannot be used gets the reason in its row and stops nothing. An interrupted run continues after the rows that it wrote.
Rows are UTF-8, whatever the locale.
"""

import argparse
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from lingbi.api_errors import BadRequest
from lingbi.cli.describing import CPU_BATCH, Describer
from lingbi.cli.rows import FORMATS, Row, Rows
from lingbi.cli.serving import AT_ONCE, Served
from lingbi.client.servers import add_server_options, find_server
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.schemas import check_schema
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.images.sources import SUFFIXES, Sources
from lingbi.model.wanted import only
from lingbi.settings import Settings, load_settings
from lingbi.temporary_folder import own_temporary_folder

PROMPT = "请描述图中内容"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all images answered, 1 some failed, 2 configuration, 3 the model did not load, 130 interrupted."""
    write_utf8()
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("lingbi").setLevel("INFO")
    warnings.filterwarnings("ignore")
    options = parse(arguments)
    try:
        options.prompt = as_utf8(options.prompt)
        options.form = read_form(options.schema) if options.schema else None
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
    parser.add_argument("--schema", type=Path, help="file with a JSON Schema; every answer is JSON that it allows")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest answer (default 512)")
    parser.add_argument(
        "--batch",
        type=_at_least_one,
        help=f"pictures asked at once (default: {AT_ONCE} of a server; loaded here 64 on a GPU, {CPU_BATCH} on the CPU)",
    )
    add_server_options(parser)
    parser.add_argument("--load", action="store_true", help="load the model here, though a server runs")
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pictures; give 1 or more")
    return int(text)


def read_form(file: Path) -> Form:
    """The form that a file's JSON Schema asks for. Raises ConfigurationError."""
    try:
        form = Form("schema", json.loads(file.read_text("utf-8")), "its schema")
        check_schema(json.loads(form.written), form.place, is_strict=True)
    except OSError as error:
        raise ConfigurationError(f"--schema {file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--schema {file} is no JSON ({error}); give a file with a JSON Schema") from None
    except BadRequest as refusal:
        raise ConfigurationError(f"--schema {file}: {refusal}") from None
    return form


def settings_of(options: argparse.Namespace) -> Settings:
    """The environment's settings and the command line's; this process is the only worker."""
    settings = load_settings(model=options.model, engine=options.engine)
    model = only(settings.model, "scripts/pipeline")
    return settings.model_copy(update={"models_dir": settings.models_dir.absolute(), "model": model, "workers": 1})


class Answers(Protocol):
    """What answers about images: a model that is loaded here, or a server."""

    def rows(self, left: Iterator[str]) -> Iterator[Row]:
        """A row for each source."""
        ...


def describe_all(options: argparse.Namespace, settings: Settings) -> int:
    """Write a row for every source; returns how many have an error in place of an answer."""
    rows, sources = Rows(options.to, options.format, options.prompt), Sources(options.source)
    done = [rows.is_done(source) for source in sources.names()]
    if not done:
        raise ConfigurationError(f"no pictures in {', '.join(options.source)}; known are {', '.join(sorted(SUFFIXES))}")
    tell_left_out(sources.passed_over, sum(done), len(done), options.to)
    if all(done):
        return 0
    answers, failed = answers_of(options, settings), 0
    with rows.begin(sources.has), progress_bar(len(done), len(done) - sum(done)) as bar:
        for row in answers.rows(source for source in sources.names() if not rows.is_done(source)):
            rows.write(row)
            failed += "error" in row
            bar.update()
    print(f"{len(done) - sum(done) - failed} answered, {failed} failed", file=sys.stderr)
    return failed


def answers_of(options: argparse.Namespace, settings: Settings) -> Answers:
    """The server that runs, or else the model, loaded here. Raises LingbiError."""
    server = None if options.load else find_server(options, settings)
    if server is None:
        return Describer(options, settings)
    from lingbi.http.service import image_rules

    print(f"asking {server.model} at {server.url}, in the background of others", file=sys.stderr)
    return Served(server, options, image_rules(settings))


def tell_left_out(passed_over: int, answered: int, all_sources: int, file: Path) -> None:
    """Say how many sources are not asked, and why."""
    if passed_over:
        print(f"{passed_over} side file(s) passed over, such as ._* of macOS and thumbnails", file=sys.stderr)
    if answered:
        print(f"{answered} of {all_sources} are answered in {file} already", file=sys.stderr)


def progress_bar(images: int, todo: int) -> "tqdm[None]":
    """A bar over all images, which begins behind the answered ones; none where standard error is not a terminal."""
    return tqdm(total=images, initial=images - todo, unit="picture", disable=None)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the engine's threads never return
