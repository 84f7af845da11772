"""Rows of answers in a file that can be gone on with: JSON lines, or text with a tab between."""

import json
import re
import sys
from pathlib import Path

from lingbi.atomic import write_text
from lingbi.errors import ConfigurationError

ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
PLAIN = {escape: plain for plain, escape in ESCAPES.items()}


def to_text(row: dict) -> str:
    """SOURCE, tab, answer; line breaks and tabs in it are written \\n and \\t, an error as [error: …]."""
    answer = f"[error: {row['error']}]" if "error" in row else row["text"]
    return "\t".join(_escaped(part) for part in (row["source"], answer))


def _escaped(text: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], text)


def _plain(text: str) -> str:
    return re.sub(r"\\.", lambda match: PLAIN[match[0]], text)


def to_json(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


def is_answer_json(line: str, prompt: str) -> str | None:
    """The source of a row that holds an answer to this prompt, or None."""
    row = json.loads(line)
    return row["source"] if "error" not in row and row["prompt"] == prompt else None


def is_answer_text(line: str, prompt: str) -> str | None:
    """As is_answer_json; text does not tell which prompt it answers."""
    source, answer = line.split("\t")
    return None if answer.startswith("[error: ") else _plain(source)


FORMATS = {"jsonl": (to_json, is_answer_json), "text": (to_text, is_answer_text)}


class Rows:
    """Rows to a file, or to standard output where there is none; done: sources that need no asking."""

    def __init__(self, file: Path | None, kind: str | None, prompt: str):
        kind = kind or ("text" if file and file.suffix == ".txt" else "jsonl")
        self._format, self._answered = FORMATS[kind]
        self.file, self.prompt, self.kind = file, prompt, kind
        self._kept = self._read() if file and file.exists() else {}
        self.done = set(self._kept)

    def _read(self) -> dict:
        """{source: line} of the answers that are there. The last line may be cut, others may not."""
        kept, lines = {}, self.file.read_text(errors="replace").split("\n")
        for line in lines[:-1]:
            try:
                source = self._answered(line, self.prompt)
            except (ValueError, LookupError, TypeError):
                raise ConfigurationError(
                    f"{self.file} holds something else than {self.kind} rows ({line[:60]!r}); give another --to"
                ) from None
            if source is not None:
                kept[source] = line
        return kept

    def __enter__(self):
        """Write anew what is kept: rows with errors are tried again, a cut last line goes."""
        self._stream = sys.stdout
        if self.file:
            try:
                write_text(self.file, "".join(line + "\n" for line in self._kept.values()))
                self._stream = self.file.open("a")
            except OSError as error:
                raise ConfigurationError(f"{self.file} cannot be written: {error.strerror}") from None
        return self

    def write(self, row: dict) -> None:
        self._stream.write(self._format(row) + "\n")
        self._stream.flush()

    def __exit__(self, *_error):
        if self.file:
            self._stream.close()
