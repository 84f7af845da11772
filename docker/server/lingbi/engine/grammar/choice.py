"""Chooses the next token among those that a grammar allows, by the engine's candidates for it."""

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lingbi.engine.grammar.vocabulary import Allowed

GREEDY = 1
FEW, MOST = 64, 1024  # candidates asked for; TurboMind gives no more, and the most take 2 ms on an H200
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """The likeliest next tokens by the engine, the likeliest first, with their log probabilities at temperature 1."""

    ids: npt.NDArray[np.int64]
    logprobs: Weights

    @classmethod
    def of(cls, logprobs: dict[int, float]) -> "Candidates":
        ids = np.fromiter(logprobs.keys(), np.int64, len(logprobs))
        return cls(ids, np.fromiter(logprobs.values(), np.float64, len(logprobs)))

    @property
    def outside(self) -> float:
        """The probability of all other tokens. TurboMind's add up to 1 among the candidates, so it is 0 there."""
        return float(min(1.0, max(0.0, 1 - np.exp(self.logprobs).sum())))


@dataclass(frozen=True)
class Sampler:
    """How a request has tokens chosen: as the engines do, in this order."""

    temperature: float
    top_k: int
    top_p: float

    @property
    def width(self) -> int:
        """How many candidates usually settle a token; the engines' filters leave no more than top-k."""
        return FEW if 0 < self.top_k <= FEW else MOST

    def is_settled(self, candidates: Candidates, allowed: Allowed) -> bool:
        """Whether more candidates would make no difference: one that the filters leave is allowed."""
        return bool(self._mass(candidates, allowed).any())

    def choose(self, candidates: Candidates, allowed: Allowed, rng: random.Random) -> int | None:
        """One of the candidates that are allowed, drawn by their probabilities; None where none of them is.

        The filters apply first and the grammar after them, so that a token that the engine drew and the grammar allows
        may stay. Where the filters leave no allowed token, it is drawn from all candidates that are allowed.
        """
        are_allowed = _are_allowed(candidates, allowed)
        if not are_allowed.any():
            return None
        weights = self._mass(candidates, allowed)
        if not weights.any():
            weights = self._weights(np.where(are_allowed, candidates.logprobs, -np.inf))
        if not weights.any():  # their probabilities are too small for numbers, and the order is still known
            return int(candidates.ids[are_allowed.argmax()])
        mass = weights.cumsum()
        place = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
        return int(candidates.ids[place])

    def _mass(self, candidates: Candidates, allowed: Allowed) -> Weights:
        """For each candidate, what is in proportion to its probability after the filters and the grammar."""
        are_allowed = _are_allowed(candidates, allowed)
        if self.top_k == GREEDY:
            return (are_allowed & (are_allowed.cumsum() == 1)).astype(float)
        return self._filtered(candidates.logprobs) * are_allowed

    def _weights(self, logprobs: Weights) -> Weights:
        """What is in proportion to the probabilities at this temperature."""
        most = logprobs.max()
        return np.exp((logprobs - most) / self.temperature) if np.isfinite(most) else np.zeros_like(logprobs)

    def _filtered(self, logprobs: Weights) -> Weights:
        """The same after top-k and top-p; of the last token in top_p, the part that falls into it."""
        weights = self._weights(logprobs)
        weights[self.top_k or len(weights) :] = 0
        mass = weights.cumsum() / weights.sum()
        return np.diff(np.minimum(mass, self.top_p), prepend=0.0)


def _are_allowed(candidates: Candidates, allowed: Allowed) -> Allowed:
    """For each candidate, whether it is allowed; a model may have more tokens than its tokeniser."""
    is_known = candidates.ids < len(allowed)
    return is_known & allowed[np.where(is_known, candidates.ids, 0)]
