"""When bound answers ask the engine for the most candidates, so that free answers beside them lose little.

All ask at the same moments: on an H200 such a question takes a step of all answers 2 to 3 ms longer however many ask, and the
worker about half a millisecond for each. The moments are so far apart that this takes a small share of the time.
"""

STEP_S, QUESTION_S, SHARE = 0.006, 0.00045, 0.04


def until_next(askers: int, now: float) -> float:
    """Seconds to the next moment of so many bound answers; now: of a clock that they share, in seconds."""
    apart = (STEP_S + QUESTION_S * askers) / SHARE
    return apart - now % apart
