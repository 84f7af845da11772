"""What the lines of a batch failed of: their errors by kind, counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.batch.batches import is_of
from lingbi.batch.tables import DONE, batch_lines

MOST_KINDS = 50
MESSAGE_CHARACTERS = 300


def kinds(connection: Connection, batch_id: str, has_examples: bool) -> list[dict[str, Any]]:
    """The kinds, the most frequent first: status_code (None: not asked), code, count.

    has_examples: whether each has custom_id and message of its first line too, which are words of the batch's owner.
    """
    columns = batch_lines.c
    code = _code(connection.dialect.name == "sqlite")
    count, first = sa.func.count(), sa.func.min(columns.line)
    asked = (
        sa.select(columns.status_code, code.label("code"), count.label("count"), first.label("first"))
        .where(columns.batch_id == batch_id, columns.state == DONE, is_of("errors"))
        .group_by(columns.status_code, code)
        .order_by(count.desc(), first)
        .limit(MOST_KINDS)
    )
    found = connection.execute(asked).mappings().all()
    examples = _examples(connection, batch_id, [row["first"] for row in found]) if has_examples else {}
    return [
        {name: row[name] for name in ("status_code", "code", "count")} | examples.get(row["first"], {}) for row in found
    ]


def _code(is_sqlite: bool) -> sa.ColumnElement[str]:
    """The error's code, of a line that was asked or of one that was not."""
    result = batch_lines.c.result
    told: Any = sa.type_coerce(result, sa.JSON) if is_sqlite else sa.cast(result, sa.JSON)
    places = (("response", "body", "error", "code"), ("error", "code"))
    return sa.func.coalesce(*(told[place].as_string() for place in places))


def _examples(connection: Connection, batch_id: str, lines: list[int]) -> dict[int, dict[str, Any]]:
    columns = batch_lines.c
    asked = sa.select(columns.line, columns.custom_id, columns.result)
    found = connection.execute(asked.where(columns.batch_id == batch_id, columns.line.in_(lines)))
    return {line: {"custom_id": name, "message": message_of(json.loads(text))} for line, name, text in found}


def message_of(result: Mapping[str, Any]) -> str:
    """What the error of a line says, as its line in the errors file has it."""
    response = result.get("response")
    body = response["body"] if response else result
    error = body.get("error") if isinstance(body, Mapping) else None
    return str(error.get("message") or "")[:MESSAGE_CHARACTERS] if isinstance(error, Mapping) else ""
