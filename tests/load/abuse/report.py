"""What a phase of the run came to, whether it kept the bounds, and the table of all phases."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.load.abuse import bounds
from tests.load.abuse.processes import Seen
from tests.load.abuse.visitors import FAILED, PICTURE, RIGHT, TEXT, WRONG, Answer

BASELINE = "none"
SHOWN_FAULTS = 5
COLUMNS = (
    "attack",
    "right",
    "wrong",
    "failed",
    "text p50",
    "p95",
    "x",
    "picture p50",
    "p95",
    "x",
    "longest",
    "page MiB",
    "worker MiB",
    "gateway MiB",
    "disk MiB",
    "restarts",
    "rest s",
    "others",
)
FOOT = """\
Times in seconds: to the first token, and the longest wait for a whole answer; x: p95 by that without attack. MiB: the
highest of a part's processes (PSS), and of the files of uploads and bodies. others: cores that neither the stack nor
this run took. Attackers run on the same cores, in processes of their own under nice 10; so does the honest side, in a session of its own."""


@dataclass(frozen=True)
class Phase:
    """One attack, several together, or none: the honest answers, what was seen of the stack, and what came of attacks.

    rest_s: until the stack had nothing to do any more; None: not within the time that was waited.
    attacks: {attack: {outcome of a request: how often}}; other_cores: taken by others of this machine meanwhile.
    """

    name: str
    answers: Sequence[Answer]
    seen: Seen
    rest_s: float | None
    attacks: dict[str, dict[str, int]] = field(default_factory=dict)
    other_cores: float = 0.0

    def count(self, outcome: str) -> int:
        return sum(answer.outcome == outcome for answer in self.answers)

    def first_tokens(self, about: str) -> list[float]:
        """Seconds to the first token of each answer; one that never came counts with its whole wait."""
        return sorted((answer.first or answer.ended) - answer.asked for answer in self.answers if answer.about == about)

    @property
    def longest_s(self) -> float:
        return max((answer.ended - answer.asked for answer in self.answers), default=0.0)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which this part of the sorted values lies; NaN of none."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def faults(phase: Phase, baseline: Phase) -> list[str]:
    """The bounds that a phase does not keep."""
    return [
        *_answer_faults(phase),
        *_first_token_faults(phase, baseline),
        *_stack_faults(phase),
        *_attack_faults(phase),
    ]


def _answer_faults(phase: Phase) -> list[str]:
    bad = [answer for answer in phase.answers if answer.outcome != RIGHT]
    found = [f"{len(bad)} of {len(phase.answers)} honest answers were not right"] if bad or not phase.answers else []
    kinds = Counter(f"{answer.way} {answer.about}: {answer.outcome}, {answer.fault}" for answer in bad)
    found += [f"  {count} x {kind}" for kind, count in kinds.most_common(SHOWN_FAULTS)]
    if phase.longest_s > bounds.MAX_WAIT_S:
        found.append(f"an answer took {phase.longest_s:.1f} s, at most {bounds.MAX_WAIT_S:.0f}")
    return found


def _first_token_faults(phase: Phase, baseline: Phase) -> list[str]:
    found = []
    for about, least in bounds.MAX_FIRST_TOKEN_S.items():
        seen, calm = (percentile(item.first_tokens(about), 0.95) for item in (phase, baseline))
        bound = max(least, bounds.MAX_FIRST_TOKEN_RATIO * calm)
        if phase is not baseline and not seen <= bound:
            found.append(f"first token of a {about}, p95: {seen:.2f} s, at most {bound:.2f}")
    return found


def _stack_faults(phase: Phase) -> list[str]:
    memory = phase.seen.memory_mib
    found = [
        f"{part} took {memory[part]:.0f} MiB, at most {most}"
        for part, most in bounds.MAX_MEMORY_MIB.items()
        if memory.get(part, 0) > most
    ]
    if phase.seen.disk_mib > bounds.MAX_DISK_MIB:
        found.append(f"files took {phase.seen.disk_mib:.0f} MiB, at most {bounds.MAX_DISK_MIB}")
    if phase.seen.restarts > bounds.MAX_RESTARTS:
        found.append(f"{phase.seen.restarts} restarts, at most {bounds.MAX_RESTARTS}")
    if phase.rest_s is None or phase.rest_s > bounds.MAX_REST_S:
        took = "did not come to rest" if phase.rest_s is None else f"came to rest after {phase.rest_s:.1f} s"
        found.append(f"{took}, at most {bounds.MAX_REST_S:.0f} s")
    return found


def _attack_faults(phase: Phase) -> list[str]:
    """What a removed login may not do any more; and an attack that never came about, which proves nothing."""
    found = [
        f"{name} sent nothing: the machine had no time for it" for name, tally in phase.attacks.items() if not tally
    ]
    admitted = phase.attacks.get("old_login", {}).get("200", 0)
    return found + ([f"{admitted} requests of a removed login were admitted"] if admitted > bounds.MAX_ADMITTED else [])


def table(phases: Sequence[Phase]) -> str:
    """The rows of all phases, the first of them the baseline, in columns."""
    rows = [list(COLUMNS), *(row(phase, phases[0]) for phase in phases)]
    widths = [max(len(line[place]) for line in rows) for place in range(len(COLUMNS))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in rows
    ]
    return "\n".join([*lines, FOOT])


def row(phase: Phase, baseline: Phase) -> list[str]:
    cells = [phase.name, *(str(phase.count(outcome)) for outcome in (RIGHT, WRONG, FAILED))]
    for about in (TEXT, PICTURE):
        first, calm = phase.first_tokens(about), baseline.first_tokens(about)
        p95 = percentile(first, 0.95)
        cells += [f"{percentile(first, 0.5):.2f}", f"{p95:.2f}", f"{p95 / percentile(calm, 0.95):.1f}"]
    memory = [phase.seen.memory_mib.get(part) for part in bounds.MAX_MEMORY_MIB]
    cells += [f"{phase.longest_s:.1f}", *("-" if mib is None else f"{mib:.0f}" for mib in memory)]
    cells += [f"{phase.seen.disk_mib:.0f}", str(phase.seen.restarts)]
    cells += ["never" if phase.rest_s is None else f"{phase.rest_s:.1f}", f"{phase.other_cores:.1f}"]
    return cells


def outcomes(phase: Phase) -> list[str]:
    """What came of the attackers' requests, one line an attack."""
    return [
        f"{name}: " + ", ".join(f"{count} x {what}" for what, count in sorted(tally.items(), key=lambda item: -item[1]))
        for name, tally in phase.attacks.items()
    ]


def as_json(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """The figures of each phase, and its faults."""
    found = []
    for phase in phases:
        figures: dict[str, Any] = {"attack": phase.name, "faults": faults(phase, phases[0])}
        figures |= {outcome: phase.count(outcome) for outcome in (RIGHT, WRONG, FAILED)}
        for about in (TEXT, PICTURE):
            first = phase.first_tokens(about)
            figures |= {f"{about}_first_token_p{part}_s": percentile(first, part / 100) for part in (50, 95)}
            figures[f"{about}_first_token_mean_s"] = statistics.fmean(first) if first else None
        figures |= {"longest_s": phase.longest_s, "rest_s": phase.rest_s, "other_cores": phase.other_cores}
        figures |= asdict(phase.seen) | {"restarts": phase.seen.restarts, "requests": phase.attacks}
        found.append(figures)
    return found
