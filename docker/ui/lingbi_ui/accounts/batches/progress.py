"""How far batches are: what the API tells of one, with its rate and the time that is left."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SPAN_S = 600.0  # of which a rate is the mean
LEAST_S = 15.0  # a rate of less would jump
MAX_KNOWN, MAX_LOOKS = 2000, 240
RUNNING, ENDED = (
    ("validating", "in_progress", "cancelling", "finalizing"),
    ("completed", "failed", "expired", "cancelled"),
)
STATUSES = (*RUNNING, *ENDED)
CAN_BE_CANCELLED = ("validating", "in_progress")
KINDS = {"output": "output_file_id", "errors": "error_file_id", "input": "input_file_id"}  # of files


@dataclass(frozen=True)
class Batch:
    """A batch as pages show it. files: {kind: id} of those there are; faults: what is wrong with its input; times: seconds
    since the epoch, None: not yet; per_s: lines a second, left_s: seconds until its end, None: nobody knows."""

    id: str
    owner: str
    status: str
    endpoint: str
    window: str
    total: int
    completed: int
    failed: int
    created_at: float
    begun_at: float | None
    ended_at: float | None
    expires_at: float | None
    files: Mapping[str, str]
    faults: tuple[Mapping[str, Any], ...] = ()
    per_s: float | None = None

    @property
    def done(self) -> int:
        return self.completed + self.failed

    @property
    def is_running(self) -> bool:
        return self.status in RUNNING

    @property
    def can_be_cancelled(self) -> bool:
        return self.status in CAN_BE_CANCELLED

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.per_s if self.status == "in_progress" and self.per_s else None


class Paces:
    """How fast batches get on, by what was seen of them before: {id: (time, lines with a result) of each look}."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self.clock = clock
        self._looks: dict[str, deque[tuple[float, int]]] = {}

    def of(self, batch_id: str, done: int, begun_at: float) -> float | None:
        """Lines a second: of the last minutes where somebody looked before, else since the batch began."""
        now = self.clock()
        looks = self._looks.pop(batch_id, None) or deque(((begun_at, 0),), MAX_LOOKS)
        self._looks[batch_id] = looks  # the dictionary is in the order of last use
        while len(self._looks) > MAX_KNOWN:
            del self._looks[next(iter(self._looks))]
        while len(looks) > 1 and now - looks[1][0] >= LEAST_S and now - looks[0][0] > SPAN_S:
            looks.popleft()
        since, before = looks[0]
        if now - looks[-1][0] >= LEAST_S:
            looks.append((now, done))
        return max(0, done - before) / (now - since) if now > since else None


def batch_of(told: Mapping[str, Any], paces: Paces) -> Batch:
    """A batch as the API's object tells it."""
    counts = told["request_counts"]
    ends = (told.get(f"{status}_at") for status in ENDED)
    batch = Batch(
        id=told["id"],
        owner=told.get("owner") or "",
        status=told["status"],
        endpoint=told["endpoint"],
        window=told["completion_window"],
        total=counts["total"],
        completed=counts["completed"],
        failed=counts["failed"],
        created_at=told["created_at"],
        begun_at=told["in_progress_at"],
        ended_at=next((at for at in ends if at is not None), None),
        expires_at=told["expires_at"],
        files={kind: told[name] for kind, name in KINDS.items() if told.get(name)},
        faults=tuple((told.get("errors") or {}).get("data") or ()),
    )
    return Batch(**{**vars(batch), "per_s": _per_s(batch, paces)})


def _per_s(batch: Batch, paces: Paces) -> float | None:
    if batch.begun_at is None:
        return None
    if batch.status == "in_progress":
        return paces.of(batch.id, batch.done, batch.begun_at)
    took_s = (batch.ended_at or 0) - batch.begun_at
    return batch.done / took_s if took_s > 0 else None
