"""What is told of usage."""

from typing import Literal

from pydantic import BaseModel


class UsageRow(BaseModel):
    """Counts, and those of the dimensions by which they were asked for. gpu_seconds: in vision encoder and engine."""

    hour: str | None = None
    day: str | None = None
    month: str | None = None
    key: str | None = None
    group: str | None = None
    owner: str | None = None
    model: str | None = None
    status: int | None = None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    images: int
    gpu_seconds: float


class UsageList(BaseModel):
    """A report. has_more: rows were left out."""

    object: Literal["list"] = "list"
    time_zone: str
    has_more: bool
    data: list[UsageRow]
