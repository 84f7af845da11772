"""Usage for people: a table that is as wide as its words are on a terminal, CSV that no spreadsheet computes with, and JSON."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from lingbi.accounts.entries import Counts

NUMBERS = tuple(name for name in Counts._fields if name != "gpu_ms") + ("gpu_seconds",)
HEADS = {"prompt_tokens": "prompt", "cached_tokens": "cached", "completion_tokens": "answer", "gpu_seconds": "GPU s"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with these, spreadsheets take a cell as a formula
Row = dict[str, Any]


def shown(row: Row) -> Row:
    """A report's row with its time in the engine in seconds."""
    return {name: value for name, value in row.items() if name != "gpu_ms"} | {"gpu_seconds": row["gpu_ms"] / 1000}


def as_csv(rows: list[Row], by: tuple[str, ...]) -> str:
    """Rows as CSV (RFC 4180) with a head."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*by, *NUMBERS))
    for row in rows:
        writer.writerow([cell(row[name]) for name in by] + [row[name] for name in NUMBERS])
    return text.getvalue()


def cell(value: Any) -> Any:
    """A cell's value; a text that a spreadsheet would compute begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_json(tables: Iterable[tuple[str, Iterable[Row]]]) -> Iterator[str]:
    """Tables as one JSON object of arrays with a row a line; in pieces, so that no table need be in memory."""
    yield "{"
    before = ""
    for name, rows in tables:
        yield f"{before}\n {json.dumps(name)}: ["
        comma = ""
        for row in rows:
            yield f"{comma}\n  {json.dumps(row, ensure_ascii=False)}"
            comma = ","
        yield "\n ]" if comma else "]"
        before = ","
    yield "\n}\n"


def as_table(rows: list[Row], by: tuple[str, ...]) -> str:
    """Rows as a table for a terminal, with their sums at the end where there are several."""
    names = (*by, *NUMBERS)
    lines = [[_text(row[name]) for name in names] for row in rows]
    if len(rows) > 1 and by:
        sums = [_text(sum(row[name] for row in rows)) for name in NUMBERS]
        lines.append(["total", *[""] * (len(by) - 1), *sums])
    table = [[HEADS.get(name, name) for name in names], *lines]
    widths = [max(width(line[column]) for line in table) for column in range(len(names))]
    return "".join(f"{_line(line, widths, len(by))}\n" for line in table)


def _text(value: Any) -> str:
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return "".join(character if character.isprintable() else "\ufffd" for character in text) or "-"


def _line(line: list[str], widths: list[int], texts: int) -> str:
    cells = [
        text + " " * (wide - width(text)) if number < texts else " " * (wide - width(text)) + text
        for number, (text, wide) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def width(text: str) -> int:
    """The columns of a terminal that a text takes: Chinese characters have two, combining ones none."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
