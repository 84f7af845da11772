"""Rows of answers in a file that a later run can continue: JSON lines or tab-separated text."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from lingbi.errors import ConfigurationError
from lingbi.files import rewritten

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
    """Rows to a file, or to standard output where there is none; rows of other prompts and other sources stay as they are.

    Of the file's rows no text is held, only digests: it may have any number of them.
    """

    def __init__(self, file: Path | None, kind: str | None, prompt: str) -> None:
        kind = kind or ("text" if file and file.suffix == ".txt" else "jsonl")
        self._format, self._parse = FORMATS[kind]
        self.file, self.prompt, self.kind = file, prompt, kind
        self._last: dict[bytes, int] = {}  # the number of the last line of each prompt and source
        self._done: set[bytes] = set()
        if file and file.is_dir():
            raise ConfigurationError(f"{file} is a folder; give a file in --to")
        for number, (_, row) in enumerate(self._kept()):
            prompt, source, is_answer = row
            self._last[digest(prompt, source)] = number
            if is_answer and prompt == self.prompt:
                self._done.add(digest(prompt, source))

    def is_done(self, source: str) -> bool:
        """Whether the file has an answer to this prompt about a source."""
        return digest(self.prompt, source) in self._done

    def _kept(self) -> Iterator[tuple[str, tuple[str, str, bool]]]:
        """(line, row) of the rows that are there. The last line may be cut, others may not."""
        if not self.file or not self.file.exists():
            return
        with self.file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    return
                try:
                    yield line, self._parse(line[:-1])
                except (ValueError, LookupError, TypeError):
                    raise ConfigurationError(
                        f"{self.file} holds something else than {self.kind} rows ({line[:60]!r}); give another --to"
                    ) from None

    def begin(self, is_asked: Callable[[str], bool]) -> Rows:
        """Rewrite the file without a truncated last line, and without the failures of sources that are asked now."""
        self._stream: TextIO = sys.stdout
        if self.file:
            try:
                with rewritten(self.file) as beside:
                    for number, (line, row) in enumerate(self._kept()):
                        if self._stays(number, *row, is_asked):
                            beside.write(line)
                self._stream = self.file.open("a", encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(f"{self.file} cannot be written: {error.strerror}") from None
        return self

    def _stays(self, number: int, prompt: str, source: str, is_answer: bool, is_asked: Callable[[str], bool]) -> bool:
        if self._last[digest(prompt, source)] != number:
            return False  # a later row is about the same
        return is_answer or prompt != self.prompt or not is_asked(source)

    def __enter__(self) -> Rows:
        return self

    def write(self, row: dict[str, Any]) -> None:
        self._stream.write(self._format(row) + "\n")
        self._stream.flush()

    def __exit__(self, *_error: object) -> None:
        if self.file:
            self._stream.close()


def digest(*texts: str) -> bytes:
    """16 bytes that stand for some texts."""
    made = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "big") + data)
    return made.digest()
