"""A prefix cache: sessions stay in the engine after their answer, so that a follow-up does not compute them again.

A chat sends its whole history and its image with every turn, and a class asks many questions about one image: the
engine has already computed that prefix. TurboMind keeps a session's KV cache until another session needs the space,
and can step back in it; this module decides which session a new prompt may continue. Every prompt begins with the
template's own words, so a prompt that takes over an old session reuses at least these, and a worker starts with
sessions that hold nothing else (`Generator.prime`).
"""

import itertools
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from lingbi.engine.prompts import Prompt

Ids = npt.NDArray[np.int_]  # token ids

# A shorter common prefix without an image is only the template's words: not worth a session that its chat may continue.
LEAST_COMMON = 256


@dataclass(frozen=True)
class Place:
    """Where an answer runs: its session, and how many tokens of the prompt that session holds already."""

    session_id: int
    step: int = 0


@dataclass(frozen=True)
class Beginning:
    """What a session is known to hold: the ids of a prompt, and the images in their ranges.

    Two images are the same if they are the same object, which the encoder's cache ensures.
    tokens: the most tokens that the session has in the KV cache, those of its answer included.
    """

    ids: Ids
    ranges: list[list[int]]
    images: "list[weakref.ref[Tensor]]"
    tokens: int

    @classmethod
    def of(cls, prompt: "Prompt", tokens: int) -> "Beginning":
        images = [weakref.ref(features) for features in prompt.features]
        return cls(np.array(prompt.ids), prompt.ranges, images, tokens)

    @classmethod
    def unsure(cls, tokens: int) -> "Beginning":
        return cls(np.array([], dtype=int), [], [], tokens)

    def common(self, prompt: "Prompt", ids: Ids) -> int:
        """Length in tokens of the prefix that this beginning shares with a prompt (ids: its ids as an array)."""
        size = min(len(ids) - 1, len(self.ids))  # at least one token must remain to be computed
        different = np.flatnonzero(ids[:size] != self.ids[:size])
        size = int(different[0]) if len(different) else size
        for number, (begin, end) in enumerate(prompt.ranges):
            if begin >= size:
                break
            known = self.images[number]() if number < len(self.images) else None
            if end > size or known is not prompt.features[number]:
                return begin
        return size


class Sessions:
    """Gives out session ids, and remembers the sessions that the engine keeps: at most `limit` besides the running ones."""

    def __init__(self, limit: int):
        self.limit = limit
        self._kept: OrderedDict[int, Beginning] = OrderedDict()
        self._numbers = itertools.count(1)

    def take(self, prompt: "Prompt", may_go_on: bool) -> Place:
        """The place for an answer: the kept session with the longest common prefix, if that is long enough; else the
        oldest one, if the limit is reached; else a new session."""
        ids = np.array(prompt.ids)
        found = self._find(prompt, ids) if may_go_on and self._kept else None
        if found:
            del self._kept[found.session_id]
            return found
        if len(self._kept) >= self.limit and self._kept:
            session_id, oldest = self._kept.popitem(last=False)
            # The engine frees what the session held beyond that.
            return Place(session_id, oldest.common(prompt, ids) if may_go_on else 0)
        return Place(next(self._numbers))

    def _find(self, prompt: "Prompt", ids: Ids) -> Place | None:
        step, session_id = max((kept.common(prompt, ids), number) for number, kept in self._kept.items())
        has_image = bool(prompt.ranges) and prompt.ranges[0][1] <= step
        return Place(session_id, step) if step >= LEAST_COMMON or has_image else None

    def __len__(self) -> int:
        """Sessions that are kept."""
        return len(self._kept)

    def tokens(self) -> int:
        """The most tokens that kept sessions hold in the KV cache; an engine may reclaim their space at any time."""
        return sum(kept.tokens for kept in self._kept.values())

    def keep(self, place: Place, prompt: "Prompt", is_whole: bool, tokens: int) -> None:
        """Take a session back; is_whole: it is known to hold the whole prompt; tokens: the most that it can hold."""
        if not self.limit:
            return
        if is_whole:
            self._kept[place.session_id] = Beginning.of(prompt, tokens)
        else:
            self._kept[place.session_id] = Beginning.unsure(tokens)
            self._kept.move_to_end(place.session_id, last=False)
