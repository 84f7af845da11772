"""Rows of answers in a file that can be gone on with: JSON lines, or text with a tab between."""

import json
import re
import sys
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.files import write_text

ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
PLAIN = {escape: plain for plain, escape in ESCAPES.items()}


def to_text(row: dict) -> str:
    """SOURCE, tab, answer, tab, prompt; line breaks and tabs in them are written \\n and \\t, an error as [error: …]."""
    answer = f"[error: {row['error']}]" if "error" in row else row["text"]
    return "\t".join(_escaped(part) for part in (row["source"], answer, row["prompt"]))


def _escaped(text: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], text)


def _plain(text: str) -> str:
    return re.sub(r"\\.", lambda match: PLAIN[match[0]], text)


def to_json(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


def read_json(line: str) -> tuple:
    """(prompt, source, whether it holds an answer) of a row."""
    row = json.loads(line)
    return row["prompt"], row["source"], "error" not in row


def read_text(line: str) -> tuple:
    """As read_json."""
    source, answer, prompt = line.split("\t")
    return _plain(prompt), _plain(source), not answer.startswith("[error: ")


FORMATS = {"jsonl": (to_json, read_json), "text": (to_text, read_text)}


class Rows:
    """Rows to a file, or to standard output where there is none.

    done: sources that have an answer to this prompt; rows of other prompts and other sources stay as they are.
    """

    def __init__(self, file: Path | None, kind: str | None, prompt: str):
        kind = kind or ("text" if file and file.suffix == ".txt" else "jsonl")
        self._format, self._parse = FORMATS[kind]
        self.file, self.prompt, self.kind = file, prompt, kind
        self.done = set()
        if file and file.is_dir():
            raise ConfigurationError(f"{file} is a folder; give a file in --to")
        self._lines = self._read() if file and file.exists() else {}

    def _read(self) -> dict:
        """{(prompt, source): line} of the rows that are there. The last line may be cut, others may not."""
        kept, lines = {}, self.file.read_text(errors="replace").split("\n")
        for line in lines[:-1]:
            try:
                prompt, source, is_answer = self._parse(line)
            except (ValueError, LookupError, TypeError):
                raise ConfigurationError(
                    f"{self.file} holds something else than {self.kind} rows ({line[:60]!r}); give another --to"
                ) from None
            kept[prompt, source] = line
            if is_answer and prompt == self.prompt:
                self.done.add(source)
        return kept

    def begin(self, todo: list) -> "Rows":
        """Leave out the rows of sources that are asked now: what failed is tried again."""
        for source in todo:
            self._lines.pop((self.prompt, source), None)
        return self

    def __enter__(self):
        """Write anew what is kept: a cut last line goes."""
        self._stream = sys.stdout
        if self.file:
            try:
                write_text(self.file, "".join(line + "\n" for line in self._lines.values()))
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
