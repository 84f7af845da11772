"""The rounds of a measurement: each kind of question from each number of people, some times over."""

import argparse
import json
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

from lingbi.bench.client import Target
from lingbi.bench.rounds import Askers, share_of
from lingbi.bench.sides import gpu_used_mib
from lingbi.errors import CheckError

PEAK_LOOK_S = 0.05
WARM_UP_PEOPLE, WARM_UP_SEED = 8, 10**6
SHARE_SEED = 2 * 10**6  # no picture of all workers' rounds, of which one would have the features
LEAST_TALKS = 8  # per round: one question has no median
Sides = dict[str, dict[str, Any]]  # by name: the figures of its starts, its memory and its rounds


def each_round(
    target: Target, options: argparse.Namespace, fixed_length: bool, gpu: int | None = None, of_workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Figures of every round; a few warm-up questions of each kind are not reported.

    of_workers: so many share the people, and the target, which is one of them, is asked by its share alone.
    """
    with Askers() as askers:
        for kind, crowds in options.ask:
            shares = [share_of(people, of_workers) for people in crowds]
            askers.ask_round(
                target, kind, min(shares[0], WARM_UP_PEOPLE), 1, options.tokens, WARM_UP_SEED, fixed_length
            )
            for people in shares:
                talks = max(options.talks, math.ceil(LEAST_TALKS / people))
                for number in range(options.rounds):
                    seed = people * options.rounds + number + (SHARE_SEED if of_workers > 1 else 0)
                    with Peak(gpu) as peak:
                        figures = askers.ask_round(target, kind, people, talks, options.tokens, seed, fixed_length)
                    if figures["failed"] == figures["requests"]:
                        raise CheckError(f"{target.url} answered none of {kind} x {people}: {figures['first_error']}")
                    print(kind, people, json.dumps(figures), file=sys.stderr, flush=True)
                    yield {"kind": kind, "people": people, "gpu_peak_mib": peak.mib} | figures


def in_turn(steps: dict[str, Iterator[dict[str, Any]]], sides: Sides) -> None:
    """Measure a round of each side after the other until all rounds are done, into sides."""
    for figures in zip(*steps.values(), strict=True):
        for side, one in zip(steps, figures, strict=True):
            sides[side]["rounds"].append(one)


class Peak:
    """Records the most memory in use on a GPU while it is open: most_mib (0 without a GPU), mib (None without one)."""

    def __init__(self, gpu: int | None):
        self.gpu, self.most_mib, self._stop = gpu, 0, threading.Event()

    @property
    def mib(self) -> int | None:
        return None if self.gpu is None else self.most_mib

    def __enter__(self) -> "Peak":
        if self.gpu is not None:
            self._thread = threading.Thread(target=self._look, args=(self.gpu,))
            self._thread.start()
        return self

    def _look(self, gpu: int) -> None:
        while not self._stop.wait(PEAK_LOOK_S):
            self.most_mib = max(self.most_mib, gpu_used_mib(gpu))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.gpu is not None:
            self._thread.join()
