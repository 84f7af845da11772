"""What /v1/admin/queue gives."""

from typing import Literal

from pydantic import BaseModel


class KeyUnderWay(BaseModel):
    """How many requests of a key run or wait."""

    key: str
    requests: int


class Queue(BaseModel):
    """One worker. running: read, answered or encoded now; waiting: for an engine instance; limit: the most of both;
    batch_lines: lines of batches that run or wait, which are in none of these."""

    object: Literal["queue"] = "queue"
    model: str
    phase: str
    running: int
    waiting: int
    limit: int
    batch_lines: int
    keys: list[KeyUnderWay]
