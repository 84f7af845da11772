"""Sessions that stay in the engine after their answer, so that who goes on, or asks the same, need not wait again.

A chat sends all it said and its picture with every turn, and a class asks about one picture: the
engine has computed that beginning already. TurboMind keeps a session's KV cache until somebody needs
the room, and can step back in it; here it is found out which session a new prompt may go on with.
Every prompt begins with the template's own words: whoever gets a session that is given up keeps these, and
a worker begins with sessions that hold nothing else (`Generator.prime`).
"""

import itertools
import weakref
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

# Fewer tokens in common, without a picture, are the template's own words: not worth a session that may be gone on with.
LEAST_COMMON = 256


@dataclass(frozen=True)
class Place:
    """Where an answer runs: its session, and how many tokens of the prompt that session holds already."""

    session_id: int
    step: int = 0


@dataclass(frozen=True)
class Beginning:
    """What a session surely holds: a prompt's ids and the pictures in their ranges.

    Pictures are the same when they are the same object, which the encoder's memory sees to.
    tokens: those in its KV cache at most, with the answer's.
    """

    ids: np.ndarray
    ranges: list
    images: list
    tokens: int

    @classmethod
    def of(cls, prompt, tokens: int) -> "Beginning":
        images = [weakref.ref(features) for features in prompt.features]
        return cls(np.array(prompt.ids), prompt.ranges, images, tokens)

    @classmethod
    def unsure(cls, tokens: int) -> "Beginning":
        return cls(np.array([], dtype=int), [], [], tokens)

    def common(self, prompt, ids: np.ndarray) -> int:
        """Tokens at the start of a prompt (ids: the same as an array) that this is the beginning of."""
        size = min(len(ids) - 1, len(self.ids))  # one token at least must be left to compute
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
    """Ids for sessions, and those whose beginnings the engine keeps: at most `limit` besides the running ones; 0: none."""

    def __init__(self, limit: int):
        self.limit = limit
        self._kept: OrderedDict[int, Beginning] = OrderedDict()
        self._numbers = itertools.count(1)

    def take(self, prompt, may_go_on: bool) -> Place:
        """The place for an answer: the kept session with the longest common beginning, if that is worth it; else the
        oldest, where as many are kept as may be; else one that starts anew."""
        ids = np.array(prompt.ids)
        found = self._find(prompt, ids) if may_go_on and self._kept else None
        if found:
            del self._kept[found.session_id]
            return found
        if len(self._kept) >= self.limit and self._kept:
            session_id, oldest = self._kept.popitem(last=False)
            # What it held beyond that is freed.
            return Place(session_id, oldest.common(prompt, ids) if may_go_on else 0)
        return Place(next(self._numbers))

    def _find(self, prompt, ids: np.ndarray) -> Place | None:
        step, session_id = max((kept.common(prompt, ids), number) for number, kept in self._kept.items())
        has_image = bool(prompt.ranges) and prompt.ranges[0][1] <= step
        return Place(session_id, step) if step >= LEAST_COMMON or has_image else None

    def __len__(self) -> int:
        """Sessions that are kept."""
        return len(self._kept)

    def tokens(self) -> int:
        """Tokens that kept sessions hold in the KV cache, at most: an engine takes their room back unasked."""
        return sum(kept.tokens for kept in self._kept.values())

    def keep(self, place: Place, prompt, is_whole: bool, tokens: int) -> None:
        """Take a session back; is_whole: it surely holds the prompt; tokens: those that it holds at most."""
        if not self.limit:
            return
        if is_whole:
            self._kept[place.session_id] = Beginning.of(prompt, tokens)
        else:
            self._kept[place.session_id] = Beginning.unsure(tokens)
            self._kept.move_to_end(place.session_id, last=False)
