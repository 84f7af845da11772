"""The phases of a worker's start, whatever it loads."""

from collections.abc import Callable
from typing import TypeVar

from lingbi.garbage import keep_from_collector
from lingbi.http.readiness import LOADING, PREPARING, PROBING, Readiness

Prepared = TypeVar("Prepared")
Built = TypeVar("Built")


def bring_up(
    readiness: Readiness,
    prepare: Callable[[], Prepared],
    build: Callable[[Prepared], Built],
    probe: Callable[[Prepared, Built], None],
) -> Prepared:
    """Take a worker through the phases of its start, until the probe's question is answered.

    What was loaded by then lives as long as the process, so the garbage collector passes over it from there on.
    """
    readiness.enter(PREPARING)
    prepared = prepare()
    readiness.enter(LOADING)
    built = build(prepared)
    readiness.enter(PROBING)
    probe(prepared, built)
    keep_from_collector()
    return prepared
