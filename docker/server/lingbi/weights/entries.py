"""One file of a model, and the rules that a path, size and hash from outside must keep."""

import re
from dataclasses import dataclass

from lingbi.errors import ConfigurationError

SHA256 = re.compile(r"[0-9a-f]{64}")
OWN_FOLDER = ".lingbi"  # where a model folder's fetch state lives
CODE_SUFFIX = ".py"


@dataclass(frozen=True, order=True)
class Entry:
    """One file: path relative to the model folder with /, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str

    @property
    def is_code(self) -> bool:
        return self.path.endswith(CODE_SUFFIX)


def check_entries(entries: tuple, where: str) -> None:
    """Raise ConfigurationError for the first entry that is unsafe or contradicts another."""
    seen = set()
    for entry in entries:
        fault = fault_of(entry) or ("is listed twice" if entry.path in seen else None)
        if fault:
            raise ConfigurationError(f"{where}: {entry.path!r} {fault}; nothing was fetched, tell the model's owner")
        seen.add(entry.path)
    for folder in {folder for path in seen for folder in _folders(path)} & seen:
        raise ConfigurationError(f"{where}: {folder!r} is listed as a file and as a folder")


def _folders(path: str) -> list:
    """The folders above a file, within the model."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def fault_of(entry: Entry) -> str | None:
    """Why an entry cannot be used, or None."""
    if not isinstance(entry.path, str):
        return "is no file name"
    parts = entry.path.split("/")  # a start looks at all of them: pathlib takes ten times as long
    if entry.path.startswith("/") or ".." in parts or "\\" in entry.path or "\0" in entry.path:
        return "points outside the model folder"
    if not {"", "."}.isdisjoint(parts) or parts[0] == OWN_FOLDER:
        return "is no usable file name"
    if not isinstance(entry.size, int) or isinstance(entry.size, bool) or entry.size < 0:
        return f"has the size {entry.size!r}"
    if not isinstance(entry.sha256, str) or not SHA256.fullmatch(entry.sha256):
        return f"has the SHA-256 {entry.sha256!r}"
    return None
