"""Rows of answers in a file that a later run can continue: JSON lines or tab-separated text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from lingbi.errors import ConfigurationError
from lingbi.files import write_text

ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
PLAIN = {escape: plain for plain, escape in ESCAPES.items()}


def to_text(row: dict[str, Any]) -> str:
    """SOURCE, tab, answer, tab, prompt; line breaks and tabs in them are written \\n and \\t, an error as [error: …]."""
    answer = f"[error: {row['error']}]" if "error" in row else row["text"]
    return "\t".join(_escaped(part) for part in (row["source"], answer, row["prompt"]))


def _escaped(text: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], text)


def _plain(text: str) -> str:
    return re.sub(r"\\.", lambda match: PLAIN[match[0]], text)


def to_json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def read_json(line: str) -> tuple[str, str, bool]:
    """(prompt, source, whether it holds an answer) of a row."""
    row = json.loads(line)
    return row["prompt"], row["source"], "error" not in row


def read_text(line: str) -> tuple[str, str, bool]:
    """The same as read_json, for a line of text."""
    source, answer, prompt = line.split("\t")
    return _plain(prompt), _plain(source), not answer.startswith("[error: ")


Row = dict[str, Any]
FORMATS: dict[str, tuple[Callable[[Row], str], Callable[[str], tuple[str, str, bool]]]] = {
    "jsonl": (to_json, read_json),
    "text": (to_text, read_text),
}


class Rows:
    """Rows to a file, or to standard output where there is none.

    done: sources that have an answer to this prompt; rows of other prompts and other sources stay as they are.
    """

    def __init__(self, file: Path | None, kind: str | None, prompt: str) -> None:
        kind = kind or ("text" if file and file.suffix == ".txt" else "jsonl")
        self._format, self._parse = FORMATS[kind]
        self.file, self.prompt, self.kind = file, prompt, kind
        self.done: set[str] = set()
        if file and file.is_dir():
            raise ConfigurationError(f"{file} is a folder; give a file in --to")
        self._lines = self._read(file) if file and file.exists() else {}

    def _read(self, file: Path) -> dict[tuple[str, str], str]:
        """{(prompt, source): line} of the rows that are there. The last line may be cut, others may not."""
        kept: dict[tuple[str, str], str] = {}
        lines = file.read_text("utf-8", errors="replace").split("\n")
        for line in lines[:-1]:
            try:
                prompt, source, is_answer = self._parse(line)
            except (ValueError, LookupError, TypeError):
                raise ConfigurationError(
                    f"{file} holds something else than {self.kind} rows ({line[:60]!r}); give another --to"
                ) from None
            kept[prompt, source] = line
            if is_answer and prompt == self.prompt:
                self.done.add(source)
        return kept

    def begin(self, todo: list[str]) -> Rows:
        """Drop the old rows of the sources that are asked now: failed ones are retried."""
        for source in todo:
            self._lines.pop((self.prompt, source), None)
        return self

    def __enter__(self) -> Rows:
        """Rewrite the rows that are kept, which drops a truncated last line."""
        self._stream: TextIO = sys.stdout
        if self.file:
            try:
                write_text(self.file, "".join(line + "\n" for line in self._lines.values()))
                self._stream = self.file.open("a", encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(f"{self.file} cannot be written: {error.strerror}") from None
        return self

    def write(self, row: dict[str, Any]) -> None:
        self._stream.write(self._format(row) + "\n")
        self._stream.flush()

    def __exit__(self, *_error: object) -> None:
        if self.file:
            self._stream.close()
