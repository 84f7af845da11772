"""One engine in a process of its own, which does what it is asked to over a pipe.

`python -m tests.tensor_parallel.one_engine FOLDER CARDS MIB DESCRIPTOR`: it takes dicts and returns what `Asked` returns.
"""

import asyncio
import os
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
from lmdeploy.messages import EngineGenerationConfig
from PIL import Image

from lingbi.engine.build import build_engine
from lingbi.engine.generation import Generator
from lingbi.engine.local import EngineNeeds
from lingbi.engine.prompts import Prompt
from lingbi.engine.turbomind.heap import share_one_heap
from lingbi.heartbeat import Vitals
from lingbi.model.folder import inspect
from lingbi.model.host_memory import fit_on_cpu
from lingbi.model.share import share_of
from lingbi.model.sizing import fit
from lingbi.settings import load_settings

SIDES = (640, 480)
KEPT = 8
TOP = 20
HEAD_TOKENS = 40  # of a prompt before its picture


def picture(seed: int) -> Image.Image:
    """Coloured squares that differ with the seed."""
    squares = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(squares).resize(SIDES, Image.Resampling.NEAREST)


class Asked:
    """What the engine is asked for: each method takes a prompt and returns plain numbers."""

    def __init__(self, generator) -> None:
        self.generator = generator

    async def prompt(self, ids: list[int], seed: int | None):
        """These tokens, and in them the picture of a seed (None: none)."""
        if seed is None:
            return Prompt(ids)
        (features,) = await self.generator.encode([picture(seed)])
        end = HEAD_TOKENS + len(features)
        return Prompt(ids[:HEAD_TOKENS] + [0] * len(features) + ids[HEAD_TOKENS:], [features], [[HEAD_TOKENS, end]])

    async def features(self, seed: int) -> list[float]:
        """Sums over a picture's features, the same to the bit where the same tower has made them."""
        (features,) = await self.generator.encode([picture(seed)], is_fresh=True)
        return [features.double().sum().item(), features.double().abs().sum().item()]

    async def greedy(self, ids: list[int], seed: int | None, tokens: int) -> dict:
        """The likeliest answer, and its seconds."""
        prompt, began = await self.prompt(ids, seed), time.monotonic()
        found, _ = await self._answer(prompt, tokens, top_k=1)
        return {"ids": found, "seconds": time.monotonic() - began}

    async def along(self, ids: list[int], seed: int | None, path: list[int], anew: bool = False) -> list[dict]:
        """What `after` tells of each beginning of a path."""
        return [await self.after(ids, seed, path[:length], anew) for length in range(len(path))]

    async def after(self, ids: list[int], seed: int | None, path: list[int], anew: bool = False) -> dict:
        """The likeliest tokens after a prompt and a path; anew: computed in one step, from no kept session."""
        whole = await self.prompt(ids, seed)
        prompt = replace(whole, ids=whole.ids + path)
        _, (found,) = await self._answer(prompt, 1, is_repeatable=anew, top_k=40, logprobs=TOP)
        return dict(found)

    async def _answer(self, prompt, tokens: int, is_repeatable: bool = False, **options):
        settings = {"temperature": 1.0, "top_p": 1.0, "random_seed": 1, "ignore_eos": True} | options
        config = EngineGenerationConfig(max_new_tokens=tokens, stop_words=[], bad_words=[], **settings)
        answer = await self.generator.start(prompt, config, is_repeatable=is_repeatable)
        ids, logprobs = [], []
        try:
            async for step in answer:
                ids += step.token_ids
                logprobs += step.logprobs or []
        finally:
            answer.close()
        await answer.task
        return ids, logprobs


def build(folder: str, cards: int, limit_mib: int):
    """The generator of an engine on so many cards (0: on the CPU), as a worker builds it."""
    found = inspect(folder)
    settings = load_settings()
    room = fit(share_of(found, cards), limit_mib) if cards else fit_on_cpu(found, limit_mib, settings)
    needs = EngineNeeds(found, settings, room)
    return Generator(build_engine(needs), needs.fit.max_batch_size, Vitals(), KEPT)


async def answer_all(connection: Connection, folder: str, cards: int, limit_mib: int) -> None:
    loop, began = asyncio.get_running_loop(), time.monotonic()
    asked = Asked(build(folder, cards, limit_mib))
    connection.send({"ready_s": time.monotonic() - began})
    while request := await loop.run_in_executor(None, connection.recv):
        connection.send(await getattr(asked, request.pop("do"))(**request))


def main(folder: str, cards: str, limit_mib: str, descriptor: str) -> None:
    share_one_heap()
    with Connection(int(descriptor)) as connection:
        asyncio.run(answer_all(connection, folder, int(cards), int(limit_mib)))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # the engine's threads never return
