"""The lock: which bytes make up a model, as the path, size and SHA-256 of every file, and where they come from."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.files import write_text

SHA256 = re.compile(r"[0-9a-f]{64}")
OWN_FOLDER = ".lingbi"  # the subfolder of a model folder in which lingbi keeps its own files
CODE_SUFFIX = ".py"
FORMAT = 1


@dataclass(frozen=True, order=True)
class Entry:
    """One file: its path relative to the model folder (with /), its size in bytes, and its SHA-256 in hex."""

    path: str
    size: int
    sha256: str

    @property
    def is_code(self) -> bool:
        return self.path.endswith(CODE_SUFFIX)


@dataclass(frozen=True)
class Lock:
    """The files of one model at one revision. model: its ModelScope id; revision: the name that was asked for."""

    model: str
    revision: str
    entries: tuple[Entry, ...]

    @cached_property
    def digest(self) -> str:
        """Identifies the bytes, whatever the revision is called."""
        lines = "".join(f"{entry.sha256} {entry.size} {entry.path}\n" for entry in sorted(self.entries))
        return sha256(lines.encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def text(self) -> str:
        body = {"format": FORMAT, "model": self.model, "revision": self.revision, "digest": self.digest}
        files = [json.dumps(asdict(entry), ensure_ascii=False) for entry in sorted(self.entries)]
        head = json.dumps(body, ensure_ascii=False, indent=1)[:-2]
        return head + ',\n "files": [\n  ' + ",\n  ".join(files) + "\n ]\n}\n"

    def write(self, file: Path) -> None:
        write_text(file, self.text())


def read(file: Path) -> Lock:
    """Read and check a lock file. Raises ConfigurationError that says what is wrong with it."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"lock file {file} cannot be read: {error}; use one that a fetch wrote") from None
    return parse(text, f"lock file {file}")


def parse(text: str, where: str) -> Lock:
    """Like read(), but from the text; where tells people what the text is."""
    try:
        body = json.loads(text)
        entries = tuple(Entry(item["path"], item["size"], item["sha256"]) for item in body["files"])
        lock = Lock(body["model"], body["revision"], entries)
        is_known = body["format"] == FORMAT
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"{where} is not a lock file: {error!r}; use one that a fetch wrote") from None
    check_entries(entries, where)
    if not is_known or lock.digest != body.get("digest"):
        raise ConfigurationError(
            f"{where} was changed by hand: its files give the digest {lock.digest[:12]}, but it says "
            f"{str(body.get('digest'))[:12]}; use one that a fetch wrote"
        )
    return lock


def changed_code(old: Lock | None, new: Lock) -> list[str]:
    """Paths of remote code (*.py) that differ between two locks; empty when there was no lock before."""
    if old is None:
        return []
    before, after = ({entry.path: entry.sha256 for entry in lock.entries if entry.is_code} for lock in (old, new))
    return sorted(path for path in before | after if before.get(path) != after.get(path))


def check_entries(entries: Iterable[Entry], where: str) -> None:
    """Raise ConfigurationError for the first entry that is unsafe or contradicts another."""
    seen: set[str] = set()
    for entry in entries:
        fault = fault_of(entry) or ("is listed twice" if entry.path in seen else None)
        if fault:
            raise ConfigurationError(f"{where}: {entry.path!r} {fault}; nothing was fetched, tell the model's owner")
        seen.add(entry.path)
    for folder in {folder for path in seen for folder in _folders(path)} & seen:
        raise ConfigurationError(
            f"{where}: {folder!r} is listed as a file and as a folder; nothing was fetched, tell the model's owner"
        )


def _folders(path: str) -> list[str]:
    """The folders above a file, within the model."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def fault_of(entry: Entry) -> str | None:
    """Why an entry cannot be used, or None. Its values come from outside and may not have the declared types."""
    if not isinstance(entry.path, str):
        return "is not a file name"
    parts = entry.path.split("/")  # every start checks all paths, and pathlib would take ten times as long
    if entry.path.startswith("/") or ".." in parts or "\\" in entry.path or "\0" in entry.path:
        return "points outside the model folder"
    if not {"", "."}.isdisjoint(parts) or parts[0] == OWN_FOLDER:
        return "is not a usable file name"
    if not isinstance(entry.size, int) or isinstance(entry.size, bool) or entry.size < 0:
        return f"has the size {entry.size!r}"
    if not isinstance(entry.sha256, str) or not SHA256.fullmatch(entry.sha256):
        return f"has the SHA-256 {entry.sha256!r}"
    return None
