"""The lock: which bytes make a model. Path, size and SHA-256 of every file, and where they come from."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.files import write_text
from lingbi.weights.entries import Entry, check_entries

FORMAT = 1


@dataclass(frozen=True)
class Lock:
    """What was fetched: model (ModelScope id), the revision asked for, and every file, by path."""

    model: str
    revision: str
    entries: tuple

    @cached_property
    def digest(self) -> str:
        """Names the bytes, whatever the revision's name is."""
        lines = "".join(f"{entry.sha256} {entry.size} {entry.path}\n" for entry in sorted(self.entries))
        return sha256(lines.encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def write(self, file: Path) -> None:
        body = {"format": FORMAT, "model": self.model, "revision": self.revision, "digest": self.digest}
        files = [json.dumps(asdict(entry), ensure_ascii=False) for entry in sorted(self.entries)]
        head = json.dumps(body, ensure_ascii=False, indent=1)[:-2]
        write_text(file, head + ',\n "files": [\n  ' + ",\n  ".join(files) + "\n ]\n}\n")


def read(file: Path) -> Lock:
    """Read and check a lock file. Raises ConfigurationError that says what is wrong with it."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"lock file {file} cannot be read: {error}; give one that a fetch has written"
        ) from None
    return parse(text, f"lock file {file}")


def parse(text: str, where: str) -> Lock:
    """As read(), from the text; where is for people."""
    try:
        body = json.loads(text)
        entries = tuple(Entry(item["path"], item["size"], item["sha256"]) for item in body["files"])
        lock = Lock(body["model"], body["revision"], entries)
        is_known = body["format"] == FORMAT
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"{where} is no lock: {error!r}; give one that a fetch has written") from None
    check_entries(entries, where)
    if not is_known or lock.digest != body.get("digest"):
        raise ConfigurationError(
            f"{where} was changed by hand: its files give digest {lock.digest[:12]}, "
            f"it says {str(body.get('digest'))[:12]}; give one that a fetch has written"
        )
    return lock


def changed_code(old: Lock | None, new: Lock) -> list:
    """Paths of remote code (*.py) that differ between two locks; nothing where there was none before."""
    if old is None:
        return []
    before, after = ({entry.path: entry.sha256 for entry in lock.entries if entry.is_code} for lock in (old, new))
    return sorted(path for path in before | after if before.get(path) != after.get(path))
