"""Rounds of questions from several processes, and the statistics of their times."""

import math
import multiprocessing
import os
import signal
import statistics
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from lingbi.bench.client import Answer, Target, ask_all

# One Python process reads a few thousand events a second, and the client must not be the bottleneck.
PEOPLE_PER_PROCESS = 16
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# Two-sided 95 % of Student's t for 2 … 10 rounds; NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


class Askers:
    """Client processes that are kept from round to round, as starting them takes longer than a round."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._size = max(1, (os.cpu_count() or 2) // 2)
        self._manager = spawn.Manager()
        # they ignore Ctrl-C, which a terminal sends to them too, so that the current round is finished
        self._pool = ProcessPoolExecutor(
            self._size, mp_context=spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
        )

    def __enter__(self) -> "Askers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._manager.shutdown()

    def ask_round(
        self, target: Target, kind: str, people: int, talks: int, tokens: int, seed: int, fixed_length: bool
    ) -> dict[str, Any]:
        """One round: requests and tokens per second, times to the first token and between tokens, failures."""
        processes = min(math.ceil(people / PEOPLE_PER_PROCESS), self._size)
        shares = [range(index, people, processes) for index in range(processes)]
        begin = self._manager.Barrier(processes)
        jobs = [
            self._pool.submit(ask_all, target, kind, share, talks, tokens, seed * 100 + index, fixed_length, begin)
            for index, share in enumerate(shares)
        ]
        results = [job.result() for job in jobs]
        seconds = max(end for _, end, _ in results) - min(start for start, _, _ in results)
        return summarise([answer for _, _, answers in results for answer in answers], seconds, tokens, fixed_length)


def share_of(people: int, workers: int) -> int:
    """How many of so many people one of so many workers gets."""
    return math.ceil(people / workers)


def summarise(answers: list[Answer], seconds: float, tokens: int, fixed_length: bool) -> dict[str, Any]:
    """The figures of one round. tokens_s counts pieces of text where answers have no fixed length."""
    good = [answer for answer in answers if not answer.error]
    pieces = sum(1 + len(answer.gaps_s) for answer in good)
    figures: dict[str, Any] = {
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "seconds": round(seconds, 3),
        "req_s": round(len(good) / seconds, 4),
        "tokens_s": round((tokens * len(good) if fixed_length else pieces) / seconds, 1),
    }
    if len(good) < len(answers):
        figures["first_error"] = next(answer.error for answer in answers if answer.error)
    if good:
        figures["ttft_ms"] = percentiles([answer.first_s for answer in good])
        figures["gap_ms"] = percentiles([gap for answer in good for gap in answer.gaps_s] or [0.0])
    return figures


def percentiles(values_s: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds, from seconds."""
    ordered = sorted(values_s)
    return {name: round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 2) for name, share in PERCENTILES.items()}


def interval(values: list[float]) -> dict[str, Any]:
    """Median of rounds, and half the width of the 95 % confidence interval of their mean (None for one round)."""
    half = None
    if len(values) in STUDENT:
        half = round(STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values)), 4)
    return {"median": round(statistics.median(values), 4), "ci95": half, "values": values}
