"""The answers that the CPU engine is generating, and which of them have a turn."""

import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from lmdeploy.messages import EngineOutput

from lingbi.engine.cpu.cache import KvCache
from lingbi.engine.cpu.sampling import Sampling
from lingbi.engine.progress import PromptProgress
from lingbi.turns import NOBODY, Asker

Output: TypeAlias = EngineOutput | PromptProgress
Emit = Callable[[Output | Exception], object]


@dataclass(eq=False)
class Sequence:
    """One answer being generated.

    prompt: embeddings [tokens, hidden] of the part that is not computed yet, or None; image_mask: bool [tokens] of it;
    ids: all token ids of prompt and answer; emit: takes each EngineOutput and PromptProgress, or the exception that
    ended the answer; cache: the session's; asker: who shares the engine with others; with_end_logprobs: give those of an
    end token too, which is no token of the answer.
    """

    session_id: int
    prompt: torch.Tensor | None
    image_mask: torch.Tensor
    ids: list[int]
    sampling: Sampling
    max_new_tokens: int
    emit: Emit
    rng: random.Random
    cache: KvCache
    asker: Asker = NOBODY
    keep: bool = False
    with_end_logprobs: bool = False
    cancelled: bool = False
    answer: list[int] = field(default_factory=list)
    logprobs: list[dict[int, float] | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = self.left_tokens

    @property
    def left_tokens(self) -> int:
        """Tokens of the prompt that are not computed yet."""
        return 0 if self.prompt is None else len(self.prompt)


def round_of(active: Collection[Sequence]) -> list[Sequence]:
    """The answers that have a turn in the next round, given those that run, of which the first has waited longest.

    Of the asker with the least weight it is one, and of the others as many as their weights are times that.
    """
    lightest = min((sequence.asker.weight for sequence in active), default=1)
    turns: Counter[str] = Counter()
    chosen = []
    for sequence in active:
        if sequence.cancelled:
            chosen.append(sequence)  # it takes no time, and its place is wanted
        elif turns[sequence.asker.name] < sequence.asker.weight // lightest:
            turns[sequence.asker.name] += 1
            chosen.append(sequence)
    return chosen
