"""What bound answers are compared with: a decoder that masks the logits of every token, and the engine in one process."""

import json
from types import SimpleNamespace

import numpy as np
import torch
from lmdeploy.model import MODELS

from lingbi.engine.cpu.scheduler import CpuEngine, embed
from lingbi.engine.generation import Generator
from lingbi.engine.grammar.choice import MOST
from lingbi.engine.prompt_forms import lmdeploy_form
from lingbi.engine.prompts import assemble, encode
from lingbi.heartbeat import Pulse, Vitals
from lingbi.model.random import make
from lingbi.vision.cache import FeatureCache
from tests.conftest import DEMO

STOP = "[UNUSED_TOKEN_145]"
SESSION_LEN = 2048
PUBLISHED_TOKENS = 92544
OF_EACH_TOKEN = ("model.tok_embeddings.weight", "output.weight")


def cpu_engine(folder) -> CpuEngine:
    return CpuEngine(str(folder), stop_words=[STOP], threads=2, sequences=4, prefill_tokens=256)


def generator_of(engine: CpuEngine, kept: int) -> Generator:
    """A generator of an engine in this process; it must be made on the loop that uses it."""
    whole = SimpleNamespace(
        gens_set=[engine.create_instance() for _ in range(4)],
        session_len=SESSION_LEN,
        tokenizer=engine.tokenizer,
        prompt_form=lmdeploy_form(MODELS.get("internlm-xcomposer2")()),
        stop_words=engine.stop_ids,
        vl_encoder=SimpleNamespace(pulse=Pulse(), cache=FeatureCache(0)),
    )
    return Generator(whole, 3, Vitals(), kept)


def prompt_of(generator: Generator, question: str):
    text = generator.form.write([dict(role="user", content=question)])
    return assemble(encode(text, generator.tokenizer, generator.form.starts_after_images), [])


def random_demo(folder, tokenizer=DEMO / "tokenizer.model", seed: int = 0):
    """The demo model's geometry with random weights, made as scripts/make-model makes it; with the published models'
    tokenizer it has their 92544 tokens."""
    geometry, model = folder / "geometry", folder / "random"
    geometry.mkdir()
    shapes = {name: list(value.shape) for name, value in torch.load(str(DEMO / "pytorch_model.bin"), mmap=True).items()}
    for file in DEMO.glob("*.json"):
        (geometry / file.name).write_bytes(file.read_bytes())
    config = json.loads((DEMO / "config.json").read_text())
    del config["lingbi_demo"]  # a demo model is asked what a picture shows before it serves
    if tokenizer != DEMO / "tokenizer.model":
        shapes |= {name: [PUBLISHED_TOKENS, shape[1]] for name, shape in shapes.items() if name in OF_EACH_TOKEN}
        config["vocab_size"] = PUBLISHED_TOKENS
    tensors = {name: {"shape": shape, "file": "pytorch_model.bin"} for name, shape in shapes.items()}
    (geometry / "tensors.json").write_text(json.dumps({"tensors": tensors}))
    (geometry / "config.json").write_text(json.dumps(config))
    make(geometry, tokenizer, model, seed)
    return model


class MaskedDecoder:
    """Decodes one token after the other with the mask on the logits of all tokens; forced text is put in as it is.

    unlisted: tokens that were outside the candidates that TurboMind would give, where the answer goes on by the rule.
    """

    def __init__(self, engine: CpuEngine, prompt, matcher):
        self.engine, self.matcher, self.vocabulary = engine, matcher, matcher.vocabulary
        self.cache, self.ids, self.unlisted = engine.decoder.new_cache(), [], 0
        self.logits = None
        self.feed(prompt.ids)

    @torch.inference_mode()
    def feed(self, ids: list[int]) -> None:
        self.logits = self.engine.decoder(*embed(self.engine.model, ids), self.cache).float()

    def allowed(self) -> torch.Tensor:
        mask = torch.zeros(len(self.logits), dtype=torch.bool)
        allowed = self.matcher.allowed()
        mask[: len(allowed)] = torch.from_numpy(allowed)
        return mask

    def force(self) -> None:
        forced = self.matcher.take_forced()
        if forced:
            self.ids += forced
            self.feed(forced)

    def best(self) -> int:
        allowed = self.allowed()
        token = int(self.logits.masked_fill(~allowed, float("-inf")).argmax())
        if int((self.logits > self.logits[token]).sum()) < MOST:
            return token
        self.unlisted += 1
        return self.vocabulary.plainest(np.array(allowed[: len(self.vocabulary.tokens)]))

    def greedy(self, limit: int) -> list[int]:
        self.force()
        while len(self.ids) < limit and not self.matcher.must_end:
            token = self.best()
            if token in self.vocabulary.stop_ids:
                break
            assert self.matcher.take(token)
            self.ids.append(token)
            self.feed([token])
            self.force()
        return self.ids[:limit]
