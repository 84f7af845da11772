"""Whether a request may begin, by the limits of its key and of its group: decided from numbers alone.

A request is admitted if it fits each limit, with everything that runs counted at the most that it may take. Tokens are
known only at the end, and that most is often far too much; so each worker may also run one request of a subject whose
tokens might not fit, as long as something is left. Therefore a fleet exceeds a limit of tokens by at most one running
request a worker, and one of requests or images never.

Proof, for tokens: before the last request that is admitted, what was used and what runs within the limit (`held`) is less
than the limit; with it, at most the limit, or it is its worker's one request beyond. So the end is at most the limit and
those requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lingbi.accounts.facts import KeyFacts, Limit

TRY_AGAIN_S = 2  # where requests that run hold what is left
Why = Literal["used up", "held", "too large"]


@dataclass(frozen=True)
class Asked:
    """The most that a request may take, besides itself."""

    tokens: int
    images: int = 0

    def of(self, measure: str) -> int:
        """The most that it may take of a measure (facts.MEASURES)."""
        return {"requests": 1, "tokens": self.tokens, "images": self.images}[measure]


LEAST = Asked(tokens=1)  # of any request


@dataclass(frozen=True)
class Standing:
    """How a limit stands.

    resets_at: end of its period, seconds since the epoch; used: in this period; held: the most that running requests may
    add, of tokens without those that may go beyond; is_beyond: whether this worker runs one that may.
    """

    limit: Limit
    resets_at: int
    used: int = 0
    held: int = 0
    is_beyond: bool = False

    @property
    def remaining(self) -> int:
        """What is neither used nor held."""
        return max(0, self.limit.most - self.used - self.held)


@dataclass(frozen=True)
class Denial:
    """Why a request may not begin: a limit that stands in its way, and what it asked of that."""

    standing: Standing
    why: Why
    asked: int

    def wait_s(self, now: float) -> int | None:
        """Seconds until it may be tried again; None where waiting changes nothing."""
        if self.why == "too large":
            return None
        return TRY_AGAIN_S if self.why == "held" else max(1, math.ceil(self.standing.resets_at - now))


@dataclass(frozen=True)
class Verdict:
    """denial: None of a request that may begin; beyond: the subjects of which its tokens may exceed a limit."""

    standings: tuple[Standing, ...]
    asked: Asked
    denial: Denial | None = None
    beyond: frozenset[str] = frozenset()


def subject_of(limit: Limit, key: KeyFacts) -> str:
    """Whose use counts against a limit of this key, as tables.py writes it."""
    return f"group:{limit.subject}" if limit.subject_kind == "group" else f"key:{key.name}"


def decide(key: KeyFacts, standings: Sequence[Standing], asked: Asked, now: float) -> Verdict:
    """Whether a request of a key may begin. Of several limits in its way, the one that takes longest is told."""
    if denial := _longest(standings, asked, now):
        return Verdict(tuple(standings), asked, denial)
    beyond = {
        subject_of(standing.limit, key)
        for standing in standings
        if asked.of(standing.limit.measure) > standing.remaining
    }
    return Verdict(tuple(standings), asked, beyond=frozenset(beyond))


def decide_unseen(standings: Sequence[Standing], now: float) -> Verdict:
    """Like decide, of a request that may be of any size, and by what is used alone: `standings` are of a moment that has
    passed, after which what was held may have ended."""
    used = [replace(standing, held=0, is_beyond=False) for standing in standings if standing.resets_at > now]
    return Verdict(tuple(standings), LEAST, _longest(used, LEAST, now))


def _longest(standings: Sequence[Standing], asked: Asked, now: float) -> Denial | None:
    denials = [denial for standing in standings if (denial := denial_of(standing, asked))]
    return max(denials, key=lambda denial: denial.wait_s(now) or math.inf, default=None)


def denial_of(standing: Standing, asked: Asked) -> Denial | None:
    """What one limit says against a request."""
    limit, amount = standing.limit, asked.of(standing.limit.measure)
    if amount == 0:
        return None
    if limit.measure != "tokens" and amount > limit.most or limit.most == 0:
        return Denial(standing, "too large", amount)
    least = 1 if limit.measure == "tokens" else amount  # of tokens, that something is left is enough for one request
    if standing.used + least > limit.most:
        return Denial(standing, "used up", amount)
    fits = standing.used + standing.held + amount <= limit.most
    may_go_beyond = limit.measure == "tokens" and not standing.is_beyond and standing.remaining > 0
    return None if fits or may_go_beyond else Denial(standing, "held", amount)
