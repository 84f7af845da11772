"""Takes some tokens of a grammar before it serves, because much of what it costs shows only then."""

import random

import numpy as np

from lingbi.engine.grammar.keywords import refusal
from lingbi.engine.grammar.matcher import Matcher
from lingbi.engine.grammar.vocabulary import Allowed

TOKENS_TRIED = 48


def rehearse(matcher: Matcher, place: str) -> None:
    """Take the plainest tokens, which lead through all that is required, and in another answer any that are allowed.

    Raises BadRequest where they need too much work, or lead to where nothing may follow. It takes some milliseconds.
    """
    for draw in (None, random.Random(0)):
        trial = matcher.copy()
        for _ in range(TOKENS_TRIED):
            trial.take_forced()
            if trial.must_end:
                break
            allowed = trial.allowed()
            if not allowed.any():
                raise refusal(place, "may lead to where no text can follow, for one because it has control characters")
            token = trial.vocabulary.plainest(allowed) if draw is None else _any(trial, allowed, draw)
            if token in trial.vocabulary.stop_ids or not trial.take(token):
                break


def _any(matcher: Matcher, allowed: Allowed, draw: random.Random) -> int:
    """One of the allowed tokens, which ends the answer only where nothing else is allowed."""
    tokens = np.flatnonzero(allowed)
    going_on = tokens[~np.isin(tokens, list(matcher.vocabulary.stop_ids))]
    return int(draw.choice(going_on if len(going_on) else tokens))
