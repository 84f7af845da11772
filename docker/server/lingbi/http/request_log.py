"""What is known of one request: for its log line, for the metrics and for its account."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lingbi.accounts.entries import NOTHING, Counts
from lingbi.logs import REQUEST_ID, requests

if TYPE_CHECKING:
    from lingbi.accounts.ledger.spool import Use

OWN = ("began", "at", "engine", "use", "group", "headers")  # fields that the log line does not have


class Stopwatch:
    """Seconds of several stretches of time, which may run side by side."""

    def __init__(self) -> None:
        self._ended_s = 0.0
        self._running: list[float] = []

    @property
    def has_run(self) -> bool:
        """Whether any stretch has begun."""
        return bool(self._running) or self._ended_s > 0

    def start(self) -> float:
        """Begin a stretch; returns what `stop` ends it by."""
        since = time.monotonic()
        self._running.append(since)
        return since

    def stop(self, since: float) -> None:
        """End a stretch; one that has ended stays as it is."""
        if since in self._running:
            self._running.remove(since)
            self._ended_s += time.monotonic() - since

    def read(self) -> float:
        """Seconds of all stretches so far."""
        now = time.monotonic()
        return self._ended_s + sum(now - since for since in self._running)


@dataclass
class Record:
    """One request. Times are seconds since it arrived; counts are None until they are known.

    at: when it arrived, seconds since the epoch; group: its key's, "" where that is in none; engine: the time that its
    answers spend in the engine; use: its account's, where it has one; headers: of the answer, besides its own.
    """

    id: str
    method: str
    path: str
    client: str
    route: str = "other"
    key: str | None = None
    model: str | None = None
    status: int | None = None
    error: str | None = None
    reason: str | None = None
    stream: bool | None = None
    pictures: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    wake_s: float | None = None
    queue_s: float | None = None
    decode_s: float | None = None
    encode_s: float | None = None
    first_token_s: float | None = None
    began: float = field(default_factory=time.monotonic, repr=False)
    at: float = field(default_factory=time.time, repr=False)
    group: str = ""
    engine: Stopwatch = field(default_factory=Stopwatch, repr=False)
    use: Use | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def account(self) -> str:
        """The name under which it counts."""
        return self.key or ""

    def given(self) -> Counts:
        """What counts of a running answer: its client has nothing before a stream's first token."""
        return self.used() if self.stream and self.completion_tokens else NOTHING

    def used(self) -> Counts:
        """What was used so far: of a request that was refused, what was done before that."""
        return Counts(
            prompt_tokens=self.prompt_tokens or 0 if self.engine.has_run else 0,
            cached_tokens=self.cached_tokens or 0,
            completion_tokens=self.completion_tokens or 0,
            images=self.pictures or 0 if self.encode_s is not None else 0,
            gpu_ms=round(1000 * ((self.encode_s or 0.0) + self.engine.read())),
        )

    def end_use(self, status: int) -> None:
        """Have what it used counted, if it has an account; only the first call does."""
        if self.use:
            self.use.end(status)

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.began

    def write(self) -> None:
        """The request's line in the log."""
        fields = {name: value for name, value in vars(self).items() if value is not None and name not in OWN}
        fields = {name: round(value, 4) if isinstance(value, float) else value for name, value in fields.items()}
        requests.info("request", extra=fields | {"seconds": round(self.elapsed(), 4)})


def request_id(presented: bytes) -> str:
    """The client's own id if it is usable, otherwise a new one."""
    text = presented.decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else f"req-{uuid.uuid4().hex}"
