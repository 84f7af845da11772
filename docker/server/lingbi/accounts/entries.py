"""What is counted of requests, and the form it has in a journal: one JSON array a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

GOOD = 200  # the status of a stream that runs: its client has it already
LONGEST_KEY, LONGEST_MODEL = 80, 200  # as the tables have room
MOST_AT = 32_503_680_000  # the year 3000
MOST_COUNT = 1 << 53
QUARTER_S = 900  # the lab's days begin with a quarter of an hour in every time zone


class Counts(NamedTuple):
    """What a request adds to its account. gpu_ms: in the vision encoder and in the engine, milliseconds."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    gpu_ms: int = 0

    def plus(self, other: Counts) -> Counts:
        """The sum of both."""
        return Counts(*(mine + its for mine, its in zip(self, other, strict=True)))

    def minus(self, other: Counts) -> Counts:
        """What is left after the other, which may be below zero."""
        return Counts(*(mine - its for mine, its in zip(self, other, strict=True)))


NOTHING = Counts()


class Entry(NamedTuple):
    """An addition to an account: counts, and what they are counted under.

    id: of the request, whose entries have it in common; empty for a sum of several requests. at: when the request came,
    seconds since the epoch, so that all its entries belong to one hour. status: the answer's; None while it runs.
    charged_at: when limits let it in, by the database's clock, in whole seconds since the epoch, so that it counts against
    them in the periods that decided; None: `at` does.
    """

    id: str
    at: float
    key: str
    model: str
    status: int | None
    counts: Counts = NOTHING
    charged_at: int | None = None

    def of(self, status: int | None, counts: Counts) -> Entry:
        """The same request's entry with another status and other counts."""
        return self._replace(status=status, counts=counts)


FIELDS = 5 + len(Counts._fields)  # that every line has


def written(entry: Entry, told: Counts = NOTHING) -> bytes:
    """An entry's line. told: what earlier lines of its request hold, where its last one ends with another status than GOOD."""
    further = [told if told != NOTHING else None, entry.charged_at]
    while further and further[-1] is None:
        further.pop()
    *under, counts, _ = entry
    row = [*under, *counts, *further]
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read(line: bytes) -> tuple[Entry, Counts]:
    """An entry and what was told before it, of a line. Raises ValueError for what no table could hold."""
    row = json.loads(line)
    if not isinstance(row, list) or not FIELDS <= len(row) <= FIELDS + 2:
        raise ValueError("no entry")
    told, charged_at = (*row[FIELDS:], None, None)[:2]
    request, at, key, model, status, *counts = row[:FIELDS]
    is_named = isinstance(request, str) and _is_text(key, LONGEST_KEY) and _is_text(model, LONGEST_MODEL)
    is_dated = isinstance(at, int | float) and 0 <= at < MOST_AT
    is_dated = is_dated and (charged_at is None or 0 <= _count(charged_at) < MOST_AT)
    if not is_named or not is_dated or not (status is None or 0 <= _count(status) < 1000):
        raise ValueError("no entry")
    entry = Entry(request, float(at), key, model, status, _counts(counts), charged_at)
    return entry, NOTHING if told is None else _counts(told)


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and "\0" not in value


def _counts(values: object) -> Counts:
    if not isinstance(values, list) or len(values) != len(Counts._fields):
        raise ValueError("no counts")
    return Counts(*map(_count, values))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MOST_COUNT:
        raise ValueError("no count")
    return value


def additions(entry: Entry, told: Counts = NOTHING) -> list[Entry]:
    """What a line adds, each part with a status: what runs counts as GOOD, and moves if it ends otherwise."""
    if entry.status in (None, GOOD) or told == NOTHING:
        return [entry if entry.status else entry.of(GOOD, entry.counts)]
    return [entry.of(entry.status, entry.counts.plus(told)), entry.of(GOOD, NOTHING.minus(told))]


def unfinished(entries: Iterable[Entry]) -> list[Entry]:
    """The requests that began among these entries and did not end, each with all that was told of it."""
    running: dict[str, Entry] = {}
    for entry in entries:
        if entry.status is not None:
            running.pop(entry.id, None)
            continue
        before = running.get(entry.id)
        running[entry.id] = entry.of(None, before.counts.plus(entry.counts)) if before else entry
    return list(running.values())
