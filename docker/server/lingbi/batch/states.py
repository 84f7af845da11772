"""The states of a batch, and how OpenAI's batch and file objects show them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import RowMapping

OPEN = ("validating", "in_progress", "cancelling", "finalizing")
ENDED = ("completed", "failed", "expired", "cancelled")
MOMENTS = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
WINDOW = re.compile(r"(?P<count>[1-9]\d{0,2})(?P<unit>[hd])")
UNITS_S = {"h": 3600, "d": 86400}
LONGEST_WINDOW_S = 30 * 86400
Row = RowMapping | Mapping[str, Any]


def window_s(text: str) -> int | None:
    """Seconds of a completion window, as in 24h or 7d; None if it is none, or longer than 30 days."""
    match = WINDOW.fullmatch(text)
    seconds = int(match["count"]) * UNITS_S[match["unit"]] if match else 0
    return seconds if 0 < seconds <= LONGEST_WINDOW_S else None


def next_status(batch: Row, is_expired: bool, is_any_running: bool) -> str | None:
    """The status that a batch goes to now, or None. It is judged again and again by whichever worker looks."""
    status = batch["status"]
    if status == "in_progress":
        if batch["completed"] + batch["failed"] >= batch["total"]:
            return "expired" if batch["expired_at"] else "completed"  # its last lines were ended because it expired
        return "expired" if is_expired and not is_any_running else None
    if status == "cancelling":
        return None if is_any_running else "cancelled"
    return "expired" if status == "validating" and is_expired else None


def batch_object(batch: Row) -> dict[str, Any]:
    """A row of `batches` as OpenAI's batch object."""
    moments = {f"{moment}_at": _whole(batch[f"{moment}_at"]) for moment in MOMENTS}
    return {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "errors": json.loads(batch["errors"]) if batch["errors"] else None,
        "input_file_id": batch["input_file_id"],
        "completion_window": batch["completion_window"],
        "status": batch["status"],
        "output_file_id": batch["output_file_id"],
        "error_file_id": batch["error_file_id"],
        "created_at": _whole(batch["created_at"]),
        **moments,
        "request_counts": {name: batch[name] for name in ("total", "completed", "failed")},
        "metadata": json.loads(batch["metadata"]) if batch["metadata"] else None,
    }


def file_object(file: Row) -> dict[str, Any]:
    """A row of `files` as OpenAI's file object."""
    return {
        "id": file["id"],
        "object": "file",
        "bytes": file["bytes"],
        "created_at": _whole(file["created_at"]),
        "expires_at": _whole(file["expires_at"]),
        "filename": file["filename"],
        "purpose": file["purpose"],
        "status": "processed",
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
