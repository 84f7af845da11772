"""What is told of usage: a key's own, and reports."""

from typing import Literal

from pydantic import BaseModel


class Used(BaseModel):
    """What was used; gpu_seconds: in the vision encoder and in the engine."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    images: int
    gpu_seconds: float


class UsedOfModel(Used):
    """The same of one model; its name is empty for requests that were refused before it was known."""

    model: str


class UsedInPeriod(Used):
    """The same of a day or a month, in all and by model."""

    models: list[UsedOfModel]


class UsedNow(BaseModel):
    """Of today and of this month, in the lab's time zone."""

    day: UsedInPeriod
    month: UsedInPeriod


class KeyLimit(BaseModel):
    """A limit that a key has, and how it stands.

    subject: the key alone (key), each key of its group (member), or all of the group together (group); name: its or the
    group's; remaining: what neither is used nor may be taken by requests that run; resets_at: seconds since the epoch.
    """

    subject: Literal["key", "member", "group"]
    name: str
    measure: Literal["requests", "tokens", "images"]
    period: Literal["minute", "day", "month"]
    most: int
    used: int
    remaining: int
    resets_at: int


class Usage(BaseModel):
    """A key's own use, and what is left of its limits."""

    object: Literal["usage"] = "usage"
    key: str
    group: str | None
    time_zone: str
    used: UsedNow
    limits: list[KeyLimit]


class UsedBy(BaseModel):
    """Of whom, of what and of when: those of the dimensions by which a report was asked for."""

    hour: str | None = None
    day: str | None = None
    month: str | None = None
    key: str | None = None
    group: str | None = None
    owner: str | None = None
    model: str | None = None
    status: int | None = None


class UsageRow(Used, UsedBy):
    """Counts, and those of the dimensions by which they were asked for; these come first in its JSON."""


class UsageList(BaseModel):
    """A report. has_more: rows were left out."""

    object: Literal["list"] = "list"
    time_zone: str
    has_more: bool
    data: list[UsageRow]
