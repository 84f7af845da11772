"""What is told of usage."""

from typing import Literal

from pydantic import BaseModel

from lingbi.http.protocol.usage import Used


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
