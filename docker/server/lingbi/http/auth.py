"""API keys: named, stored as hashes, reread when their file changes, compared in constant time.

A line of the key file reads `NAME HASH` or `NAME HASH LIMIT`; HASH is `sha256:` and 64 hex digits of
the key, LIMIT the most requests of this key at once. Keys are 32 random bytes, so one round of
SHA-256 is enough: there is nothing to guess. `scripts/key` writes the file.
"""

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lingbi.errors import ConfigurationError

log = logging.getLogger(__name__)
KEY_BYTES = 32
DEFAULT, PAGE = "default", "ui"
LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+sha256:(?P<digest>[0-9a-f]{64})(?:\s+(?P<limit>[1-9]\d{0,5}))?")
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Key:
    """A key's name, the SHA-256 of the key in hex, and its limit of requests at once (None: the setting's)."""

    name: str
    digest: str
    limit: int | None = None

    def line(self) -> str:
        return f"{self.name} sha256:{self.digest}" + (f" {self.limit}" if self.limit else "")


def digest(key: bytes) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(key).hexdigest()


def parse_keys(text: str, where: str, may_be_empty: bool = False) -> list[Key]:
    """The keys of a file's text; `#` begins a comment. Raises ConfigurationError with the line's number."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        match = LINE.fullmatch(line)
        if line and not match:
            raise ConfigurationError(
                f"{where} line {number} is no `NAME sha256:HEX [LIMIT]`; use scripts/key to make keys"
            )
        if match:
            limit = match["limit"]
            keys.append(Key(match["name"], match["digest"], int(limit) if limit else None))
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"{where} names the key {twice} twice; remove one")
    if not keys and not may_be_empty:
        raise ConfigurationError(f"{where} holds no key; add one with scripts/key, or remove the file to have one made")
    return keys


def read_keys(file: Path) -> list[Key]:
    """The keys of a file; none where it is missing."""
    return _read(file) if file.exists() else []


def _read(file: Path, may_be_empty: bool = False) -> list[Key]:
    try:
        return parse_keys(file.read_text(), f"key file {file}", may_be_empty)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"key file {file} cannot be read: {error}") from None


def ensure_keys(file: Path, own_copy: Path) -> list[Key]:
    """The keys of the key file, with the operator's own one in it.

    own_copy: the file (mode 0600) with the key `default` in plain, for scripts/up, scripts/smoke and
    the operator. It is made when there is no key at all; when it is there, `default` follows it.
    """
    with _locked(file):
        keys = read_keys(file)
        if not keys and not own_copy.exists():
            _write(own_copy, f"lb-{secrets.token_urlsafe(KEY_BYTES)}\n")
        return _follow(file, keys, DEFAULT, own_copy) if own_copy.exists() else keys


def ensure_page_key(file: Path, copy: Path, limit: int) -> None:
    """The page's own key: in plain in `copy` (mode 0600), made when missing, and hashed in the key file."""
    with _locked(file):
        if not copy.exists():
            _write(copy, f"lb-{secrets.token_urlsafe(KEY_BYTES)}\n")
        _follow(file, read_keys(file), PAGE, copy, limit)


def _follow(file: Path, keys: list[Key], name: str, copy: Path, limit: int | None = None) -> list[Key]:
    """The keys, with the one of this name taken from its plaintext copy; saved if that changes them."""
    own = Key(name, digest(_first_word(copy)), limit)
    if own.digest in {key.digest for key in keys}:
        return keys
    keys = [key for key in keys if key.name != name] + [own]
    save_keys(file, keys)
    return keys


def take_keys(file: Path, folder: Path) -> None:
    """Put every key of a folder into the key file: each file's first word, under the file's name."""
    with _locked(file):
        keys = read_keys(file)
        for plain in sorted(path for path in folder.iterdir() if path.is_file()):
            old = next((key for key in keys if key.name == plain.name), Key(plain.name, ""))
            keys = [key for key in keys if key.name != plain.name] + [replace(old, digest=digest(_first_word(plain)))]
        parse_keys("".join(f"{key.line()}\n" for key in keys), f"the keys of {folder}")
        if keys != read_keys(file):
            save_keys(file, keys)


def _first_word(file: Path) -> bytes:
    try:
        words = file.read_bytes().split()
    except OSError as error:
        raise ConfigurationError(
            f"key file {file} cannot be read by user {os.getuid()}: {error.strerror}; chmod a+r it, in a closed folder"
        ) from None
    if not words:
        raise ConfigurationError(f"key file {file} is empty; put a key in it, or remove it to have one made")
    return words[0]


def save_keys(file: Path, keys: list[Key]) -> None:
    """Replace the key file in one step."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.new")
    _write(beside, "".join(f"{key.line()}\n" for key in keys))
    beside.replace(file)


def add_key(file: Path, name: str, limit: int | None = None) -> str:
    """Make a key, store only its hash, and return the key: it cannot be shown a second time."""
    key = f"lb-{secrets.token_urlsafe(KEY_BYTES)}"
    with _locked(file):
        keys = read_keys(file)
        if name in {known.name for known in keys}:
            raise ConfigurationError(f"key file {file} has a key {name} already; remove it first, or take another name")
        made = Key(name, digest(key.encode()), limit)
        parse_keys(made.line(), "the new key")
        save_keys(file, [*keys, made])
    return key


def remove_key(file: Path, name: str) -> None:
    """Remove a key."""
    with _locked(file):
        keys = read_keys(file)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise ConfigurationError(f"key file {file} has no key {name}; scripts/key list shows them")
        if not left:
            raise ConfigurationError(f"{name} is the last key in {file}; add another first")
        save_keys(file, left)


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class KeyRing:
    """The keys of a file, read again when it changes.

    A missing or unusable file changes nothing, because a volume that vanishes must not lock anybody out.
    A file without keys was emptied deliberately, so nobody is let in.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.file, self._clock = file, clock
        self.keys, self._stamp, self._looked = read_keys(file), _stamp(file), clock()

    def find(self, presented: bytes) -> Key | None:
        """The presented key if it is known; the comparison takes constant time."""
        self._look()
        candidate = digest(presented)
        found = [key for key in self.keys if hmac.compare_digest(candidate, key.digest)]
        return found[0] if found else None

    def _look(self) -> None:
        if self._clock() - self._looked < LOOK_AGAIN_S:
            return
        self._looked = self._clock()
        stamp = _stamp(self.file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            log.error("key file %s is gone; the keys stay as they were until it is back", self.file)
            return
        try:
            self.keys = _read(self.file, may_be_empty=True)
        except ConfigurationError as error:
            log.error("the keys stay as they were: %s", error)
            return
        if self.keys:
            log.info("key file %s was read again: %s keys", self.file, len(self.keys))
        else:
            log.error("key file %s was emptied: nobody is let in; add a key with scripts/key", self.file)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size
    except OSError:
        return None
