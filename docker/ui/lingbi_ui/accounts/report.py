"""The monthly report as a file for spreadsheets, of which none is computed with."""

import csv
import datetime
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lingbi_ui.accounts.use import COUNTED

BY = ("day", "group", "owner", "key", "model")
MONTHS = 13  # that can be downloaded: this one and a year
MONTH = re.compile(r"(?!0000|9999)\d{4}-(0[1-9]|1[0-2])", re.ASCII)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with these, spreadsheets take a cell as a formula
MARK = "\ufeff"  # by which spreadsheets know that Chinese names are UTF-8


def months(today: datetime.date) -> list[str]:
    """This month and those before it, as in 2026-05."""
    count = today.year * 12 + today.month - 1
    return [f"{(count - back) // 12}-{(count - back) % 12 + 1:02}" for back in range(MONTHS)]


def days_of(month: str, today: datetime.date) -> list[str]:
    """The days of a month, up to today."""
    first = datetime.date.fromisoformat(f"{month}-01")
    days = (first + datetime.timedelta(number) for number in range(31))
    return [day.isoformat() for day in days if day.month == first.month and day <= today]


def file_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The report (RFC 4180, UTF-8 with its mark)."""
    text = io.StringIO()
    text.write(MARK)
    writer = csv.writer(text)
    writer.writerow((*BY, *COUNTED))
    for row in rows:
        writer.writerow([cell(row[name]) for name in BY] + [row[name] for name in COUNTED])
    return text.getvalue().encode()


def cell(value: Any) -> Any:
    """A cell's value; a text that a spreadsheet would compute begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
