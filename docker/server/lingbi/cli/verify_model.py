"""scripts/verify-model: prove that a model folder is served rightly on this machine, in a report to paste.

The report says which model was recognised and what the folder's own code does. One image question is asked on this
machine's engine, and greedy tokens are compared with those of the folder's own code under plain transformers.
"""

import argparse
import asyncio
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingbi import planner
from lingbi.errors import CheckError, LingbiError
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import CPU
from lingbi.model.host_memory import CpuFit, available_mib, needed_mib
from lingbi.model.resources import find_resources
from lingbi.model.sizing import Fit
from lingbi.settings import Settings, load_settings

if TYPE_CHECKING:
    from lingbi.worker.probe import Answered

PACKAGES = ("lmdeploy", "torch", "transformers")
QUESTION = "Say in one sentence what you can do."
COMPARED_TOKENS = 16
IMAGE_ANSWER_TOKENS = 48
# Two sums in 16 bits may swap tokens whose logits are as close as this; wrong computation is off by several.
NEAR_TIE = 0.25
DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class Line:
    """One line of the report; state: ok, FAIL, or skip with the reason."""

    state: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<5} {self.name:<12} {self.text}"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 every check passed, 1 a check failed, 2 configuration, 3 the model did not load."""
    options = parse(arguments)
    try:
        return verify(options, load_settings(engine=options.engine))
    except LingbiError as error:
        print(Line("FAIL", "error", str(error)))
        return error.exit_status


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/verify-model", description=__doc__.split("\n")[0].split(": ")[1].capitalize()
    )
    parser.add_argument("folder", type=Path, help="the folder that holds config.json, weights and code")
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    return parser.parse_args(arguments)


def verify(options: argparse.Namespace, settings: Settings) -> int:
    """Print each line of the report as soon as it is known; returns the exit status."""
    placement = planner.place_folder(options.folder, settings, find_resources())
    failed = 0
    for line in lines(placement, settings):
        print(line, flush=True)
        failed += line.state == "FAIL"
    print(f"{'FAIL' if failed else 'ok'}: {placement.folder.served_name} on {placement.choice.engine}", flush=True)
    return CheckError.exit_status if failed else 0


def lines(placement: planner.FolderPlacement, settings: Settings) -> Iterator[Line]:
    """The report, line by line: what costs least comes first."""
    choice, folder, fit = placement.choice, placement.folder, placement.fit
    yield recognised(folder)
    yield code_digests(folder)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    yield Line("ok", "machine", f"engine {choice.engine}: {choice.reason}; {versions}")
    yield Line("ok", "memory", str(fit))
    engine = Asked(folder, settings, fit)
    yield engine.about_an_image()
    spare_mib = available_mib()
    needed = needed_mib(folder, settings.hd_num)
    if choice.engine != CPU and needed > spare_mib:
        reason = f"needs {needed} MiB of host memory, and {spare_mib} MiB are available"
        yield Line("skip", "conventions", reason)
        yield Line("skip", "tokens", reason)
        return
    own_code = OwnCode(folder, settings)
    yield own_code.conventions()
    yield own_code.compare(engine.about_text())


def recognised(folder: ModelFolder) -> Line:
    """Which model the folder was recognised as."""
    gigabytes = sum(shard.stat().st_size for shard in folder.shards) / 1e9
    return Line(
        "ok",
        "recognised",
        f"{folder.served_name}: template {folder.template}, sessions of {folder.session_len} tokens, "
        f"{len(folder.shards)} shard(s), {gigabytes:.2f} GB",
    )


def code_digests(folder: ModelFolder) -> Line:
    """The folder's code files with the first characters of their SHA-256, which identify a published revision."""
    files = sorted(folder.path.glob("*.py"))
    digests = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:DIGEST_CHARACTERS]}" for file in files]
    return Line("ok", "code", ", ".join(digests))


class Asked:
    """This machine's engine, which can be asked questions."""

    def __init__(self, folder: ModelFolder, settings: Settings, fit: Fit | CpuFit):
        from lingbi.engine.build import build_engine
        from lingbi.engine.generation import Generator
        from lingbi.engine.local import EngineNeeds
        from lingbi.heartbeat import Vitals
        from lingbi.http.service import image_rules
        from lingbi.images.loader import ImageDoor

        self.folder = folder
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.engine = build_engine(EngineNeeds(folder, settings, fit))
        self.images = ImageDoor(image_rules(settings))

        async def made() -> Generator:
            return Generator(self.engine, 1, Vitals())  # it belongs to the loop that it is created on

        self.generator = self.loop.run_until_complete(made())

    def about_an_image(self) -> Line:
        """Whether the probe's image question is answered, by content where the model is the demo."""
        from lingbi.errors import StartError
        from lingbi.http.readiness import PROBE_QUESTION, probe_messages
        from lingbi.images import scenes
        from lingbi.worker.probe import PROBE_SCENE, judge

        answered = self._ask(probe_messages(scenes.draw(PROBE_SCENE), PROBE_QUESTION), IMAGE_ANSWER_TOKENS)
        text = (
            f"{len(answered.prompt.ids)} prompt tokens, {len(answered.token_ids)} tokens of answer in "
            f"{answered.seconds:.1f} s: {answered.text!r}"
        )
        try:
            judge(answered, self.folder.is_demo)
        except StartError as error:
            return Line("FAIL", "image", f"{error}; {text}")
        return Line("ok", "image", text)

    def about_text(self) -> "Answered":
        """The greedy answer to a short text question."""
        return self._ask([{"role": "user", "content": QUESTION}], COMPARED_TOKENS)

    def _ask(self, messages: list[dict[str, Any]], tokens: int) -> "Answered":
        from lingbi.worker.probe import ask_greedily

        return self.loop.run_until_complete(ask_greedily(self.generator, self.images, messages, tokens))


class OwnCode:
    """The folder's own code on the CPU, as plain transformers runs it."""

    def __init__(self, folder: ModelFolder, settings: Settings):
        from lingbi.engine.cpu.checkpoint import load_checkpoint
        from lingbi.engine.cpu.decoder import Decoder
        from lingbi.logs import remote_code_logged

        self.folder = folder
        with remote_code_logged(logging.getLogger("lingbi.remote_code")):
            # By the path that the engine uses: on a CPU, the checkpoint is loaded already.
            self.model = load_checkpoint(os.fspath(folder.link_in(settings.state_dir / "models")))
        self.decoder = Decoder(self.model, folder.is_tiled)

    def conventions(self) -> Line:
        """What the code does with positions and caches, and how close its logits are to lingbi's decoder."""
        import torch

        from lingbi.engine.cpu.agreement import UNKNOWN, conventions

        with torch.inference_mode():
            found = conventions(self.model, self.decoder, os.fspath(self.folder.path))
        state = "FAIL" if found.rotation == UNKNOWN else "ok"
        text = f"the code rotates {found.rotation}, attends with {found.attention}; cosine of logits {found.cosine:.6f}"
        return Line(state, "conventions", text)

    def compare(self, answered: "Answered") -> Line:
        """Whether an engine's greedy tokens are those of `generate` of the folder's own code."""
        import torch

        from lingbi.engine.cpu.scheduler import embed

        with torch.inference_mode():
            prompt, image_mask = embed(self.model, answered.prompt.ids)
            made = self.model.generate(
                inputs_embeds=prompt[None],
                im_mask=image_mask[None],
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=max(1, len(answered.token_ids)),
                output_scores=True,
                return_dict_in_generate=True,
            )
        gaps = [
            float(scores[0].max() - scores[0][token])
            for scores, token in zip(made.scores, answered.token_ids, strict=False)
        ]
        return judged(made.sequences[0].tolist(), answered.token_ids, gaps)


def judged(expected: list[int], found: list[int], gaps: list[float]) -> Line:
    """The line of a comparison.

    expected: tokens of plain transformers; found: the engine's; gaps: how far each of the engine's lies below the best
    logit, which means something only up to the first difference.
    """
    same = next(
        (i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(found)),
    )
    text = f"{same} of {len(found)} greedy tokens are those of the folder's own code under plain transformers"
    if same == len(found):
        return Line("ok" if found else "FAIL", "tokens", text)
    text += f"; at token {same + 1} the engine's choice is {gaps[same]:.3f} below the best logit"
    if gaps[same] <= NEAR_TIE:
        return Line("ok", "tokens", f"{text}, as close as 16 bits can tell")
    return Line("FAIL", "tokens", text)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # the engine's threads never return
