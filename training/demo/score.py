"""The score on held-out images: `python -m training.demo.score --model FOLDER` or `--url http://host:port/v1`."""

import argparse
import base64
import io
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import torch
from PIL import Image

from lingbi.images.scene_json import json_fault
from lingbi.images.scenes import Scene, Thing, find_fault

from . import MODEL_FOLDER
from .conversations import random_turn
from .heldout import JSON_QUESTIONS, QUESTIONS, heldout_picture
from .template import STOP, Pair, encode_prompt, messages_of

N_PICTURES, SEED = 200, 20240501
MAX_NEW_TOKENS = 256  # six objects as JSON
PASS_MARK = 0.95


@dataclass
class Verdict:
    """One answer; `fault` is None if it is right."""

    kind: str
    language: str
    style: str
    n_things: int
    question: str
    answer: str
    fault: str | None


class Model(Protocol):
    """What is scored: it sees an image once, and answers several questions about it."""

    def look(self, image: Image.Image) -> Any:
        """The image in the form that `answer` takes."""

    def answer(self, picture: Any, turns: Sequence[Pair]) -> str:
        """Answers the last of (question, answer) pairs about what `look` returned."""


Score = Callable[[Model, int, int], list[Verdict]]  # of a held-out image by its number, and a seed


class FolderModel:
    """Answers from the remote code of a model folder, decoded greedily on the CPU."""

    def __init__(self, folder: Path | str) -> None:
        from lmdeploy.tokenizer import Tokenizer
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=True, torch_dtype=torch.float32
        ).eval()
        self.tokenizer = Tokenizer(str(folder))
        self.stop = self._encode(STOP)[0]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_bos=False)

    @torch.inference_mode()
    def look(self, image: Image.Image) -> torch.Tensor:
        """Image tokens [tokens, hidden]."""
        return self.model.vision_proj(self.model.vit(self.model.vis_processor(image)[None]))[0]

    @torch.inference_mode()
    def answer(self, picture: torch.Tensor, turns: Sequence[Pair]) -> str:
        """Answers the last of (question, answer) pairs about what `look` returned."""
        ids = torch.tensor(
            [[self.tokenizer.bos_token_id] + encode_prompt(self._encode, messages_of(turns), len(picture))]
        )
        im_mask = ids < 0
        embeds = self.model.model.tok_embeddings(ids.clamp_min(0))
        embeds[im_mask] = picture
        out = self.model(inputs_embeds=embeds, im_mask=im_mask)
        said: list[int] = []
        while len(said) < MAX_NEW_TOKENS:
            token = out.logits[0, -1].argmax().item()
            if token == self.stop:
                break
            said.append(token)
            out = self.model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values)
        return self.tokenizer.decode(said)


class UrlModel:
    """Answers from an OpenAI-compatible server."""

    def __init__(self, url: str, key: str) -> None:
        self.client = httpx.Client(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {key}"}, timeout=120, trust_env=False
        )
        self.name = self._json(self.client.get("/models"))["data"][0]["id"]

    @staticmethod
    def _json(response: httpx.Response) -> Any:
        response.raise_for_status()
        return response.json()

    def look(self, image: Image.Image) -> str:
        """The image as a data URL."""
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    def answer(self, picture: str, turns: Sequence[Pair]) -> str:
        messages = messages_of(turns, n_pictures=0)
        messages[0]["content"] = [
            dict(type="text", text=turns[0][0]),
            dict(type="image_url", image_url=dict(url=picture)),
        ]
        body = dict(model=self.name, messages=messages, max_tokens=MAX_NEW_TOKENS, temperature=0, top_k=1)
        return self._json(self.client.post("/chat/completions", json=body))["choices"][0]["message"]["content"]


def score_picture(model: Model, i: int, seed: int) -> list[Verdict]:
    """Verdicts on the answers about held-out image i: hand-written questions, some from the grammar, and a short conversation."""
    rng = random.Random(f"{seed}-{i}")
    image, scene = heldout_picture(rng, i)
    picture = model.look(image)
    style, verdicts = ("plain" if i % 2 else "trained"), []
    history: list[Pair] = []
    for j, (kind, language, question, check, about) in enumerate(_questions(rng, scene)):
        turns = [*(history if j >= 4 else []), (question, None)]
        answer = model.answer(picture, turns)
        verdicts.append(
            Verdict(kind, language, style, len(scene.things), question, answer, find_fault(check, scene, answer, about))
        )
        if j >= 3:
            history = [*turns[:-1], (question, answer)]
    return verdicts


def score_json(model: Model, i: int, seed: int) -> list[Verdict]:
    """Verdicts on JSON lists of the objects in held-out image i: one is asked for in English and one in Chinese."""
    rng = random.Random(f"{seed}-{i}")
    image, scene = heldout_picture(rng, i)
    picture, verdicts = model.look(image), []
    for language, questions in JSON_QUESTIONS.items():
        question = rng.choice(questions)
        answer, style = model.answer(picture, [(question, None)]), "plain" if i % 2 else "trained"
        fault = json_fault(scene.things, answer)
        verdicts.append(Verdict("json", language, style, len(scene.things), question, answer, fault))
    return verdicts


def score_model(
    model: Model, n_pictures: int = N_PICTURES, seed: int = SEED, threads: int = 1, score: Score = score_picture
) -> list[Verdict]:
    """Verdicts on all answers. score: what is asked of each image."""
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda i: score(model, i, seed), range(n_pictures))
        return [verdict for part in parts for verdict in part]


def _questions(rng: random.Random, scene: Scene) -> Iterator[tuple[str, str, str, str, Sequence[Thing] | None]]:
    """(kind, language, question, check, about): three on their own, then three that form a conversation."""
    kinds = [kind for kind in QUESTIONS if kind[0] != "background" or scene.background]
    asked = [kind for kind in rng.sample(kinds, len(kinds)) if kind[0] != "describe"][:3]
    asked.insert(0, ("describe", rng.choice(["zh", "en"])))
    for kind, language in asked:
        yield kind, language, rng.choice(QUESTIONS[kind, language]), kind, None
    for _ in range(3):
        turn = random_turn(rng, scene)
        while turn.check == "talk":
            turn = random_turn(rng, scene)
        yield turn.kind, turn.language, turn.question, turn.check, turn.about


def print_score(verdicts: list[Verdict]) -> float:
    """Prints the share of right answers by kind, language, style and number of objects; returns the overall share."""
    for title, key in (
        ("kind", lambda v: v.kind),
        ("language", lambda v: v.language),
        ("style", lambda v: v.style),
        ("objects", lambda v: str(v.n_things)),
    ):
        groups: defaultdict[str, list[bool]] = defaultdict(list)
        for verdict in verdicts:
            groups[key(verdict)].append(verdict.fault is None)
        for name, right in sorted(groups.items()):
            print(f"{title:10} {name:12} {sum(right):5} of {len(right):5} right {sum(right) / len(right):8.1%}")
    share = sum(verdict.fault is None for verdict in verdicts) / len(verdicts)
    print(f'{"all":23} {sum(v.fault is None for v in verdicts):5} of {len(verdicts):5} right {share:8.1%}', flush=True)
    return share


def score_folder(folder: Path | str, n_pictures: int = N_PICTURES, seed: int = SEED) -> list[Verdict]:
    return score_model(FolderModel(folder), n_pictures, seed)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Scores a demo model on held-out pictures; exit status 1 below 95 %.")
    parser.add_argument(
        "--model", default=str(MODEL_FOLDER), help="model folder, run on this CPU (default: %(default)s)"
    )
    parser.add_argument("--url", help="OpenAI-compatible server to ask instead, such as http://127.0.0.1:23333/v1")
    parser.add_argument("--api-key-file", type=Path, help="file with the API key for --url")
    parser.add_argument("--pictures", type=int, default=N_PICTURES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1, help="questions asked at once, with --url")
    parser.add_argument("--faults", type=int, default=0, help="how many wrong answers to print")
    parser.add_argument("--answers", type=Path, help="file for all verdicts as JSON")
    parser.add_argument("--json", action="store_true", help="ask for JSON lists of the objects in place of all else")
    args = parser.parse_args(argv)
    model = UrlModel(args.url, args.api_key_file.read_text().split()[0]) if args.url else FolderModel(args.model)
    score = score_json if args.json else score_picture
    verdicts = score_model(model, args.pictures, args.seed, args.threads if args.url else 1, score)
    if args.answers:
        args.answers.write_text(json.dumps([asdict(verdict) for verdict in verdicts], ensure_ascii=False, indent=1))
    for verdict in [verdict for verdict in verdicts if verdict.fault][: args.faults]:
        print(
            f"{verdict.kind} ({verdict.style}, {verdict.n_things} objects): {verdict.question} -> {verdict.answer}\n    {verdict.fault}"
        )
    return 0 if print_score(verdicts) >= PASS_MARK else 1


if __name__ == "__main__":
    sys.exit(main())
