"""The key file of a host: API keys, named and hashed, and the plaintext copies of those that lingbi itself uses.

A line of the key file reads `NAME HASH` or `NAME HASH LIMIT`; HASH is `sha256:` and 64 hex digits of
the key, LIMIT the most requests of this key at once. The comment `# given` marks a key that a start took
from LINGBI_PLAIN_KEYS_DIR: it goes when that folder has it no longer. Keys are 32 random bytes, so one round
of SHA-256 is enough: there is nothing to guess. The accounts' database follows the file; `scripts/key`
keeps what it makes in the database alone.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError

KEY_BYTES = 32
DEFAULT, PAGE = "default", "ui"
GIVEN = "given"
LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+sha256:(?P<digest>[0-9a-f]{64})(?:\s+(?P<limit>[1-9]\d{0,5}))?")
# What is left of a key that was made here, when its file was cut off: the end of its line is missing too.
CUT_OFF = re.compile(rb"l|lb|lb-[A-Za-z0-9_-]{0,42}|[^\n]*\0+")


@dataclass(frozen=True)
class Key:
    """A key's name, the SHA-256 of the key in hex, and its limit of requests at once (None: the setting's).

    is_given: it is from LINGBI_PLAIN_KEYS_DIR.
    """

    name: str
    digest: str
    limit: int | None = None
    is_given: bool = False

    def line(self) -> str:
        """As it stands in the file."""
        limit, mark = f" {self.limit}" if self.limit else "", f" # {GIVEN}" if self.is_given else ""
        return f"{self.name} sha256:{self.digest}{limit}{mark}"


def digest(key: bytes) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(key).hexdigest()


def parse_keys(text: str, where: str, may_be_empty: bool = False) -> list[Key]:
    """The keys of a file's text; `#` begins a comment. Raises ConfigurationError with the line's number."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        line, _, comment = (part.strip() for part in line.partition("#"))
        match = LINE.fullmatch(line)
        if line and not match:
            raise ConfigurationError(
                f"{where} line {number} is no `NAME sha256:HEX [LIMIT]`; use scripts/key to make keys"
            )
        if match:
            limit = match["limit"]
            keys.append(Key(match["name"], match["digest"], int(limit) if limit else None, comment == GIVEN))
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"{where} names the key {twice} twice; remove one")
    if not keys and not may_be_empty:
        raise ConfigurationError(f"{where} holds no key; add one with scripts/key, or remove the file to have one made")
    return keys


def read_keys(file: Path) -> list[Key]:
    """The keys of a file; none where it is missing."""
    return read_key_file(file) if file.exists() else []


def read_key_file(file: Path, may_be_empty: bool = False) -> list[Key]:
    """The keys of a file that is there. Raises ConfigurationError."""
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
        if not keys and _is_missing(own_copy):
            _make(own_copy)
        _close(own_copy)
        return _follow(file, keys, DEFAULT, own_copy) if own_copy.exists() else keys


def ensure_page_key(file: Path, copy: Path, limit: int) -> None:
    """The page's own key: in plain in `copy` (mode 0600), made when missing, and hashed in the key file."""
    with _locked(file):
        if _is_missing(copy):
            _make(copy)
        _close(copy)
        _follow(file, read_keys(file), PAGE, copy, limit)


def check_keys(file: Path, copy: Path) -> list[str]:
    """The names of the keys that a start will find, before it makes any. Raises ConfigurationError for unusable files."""
    names = [key.name for key in read_keys(file)]
    if not _is_missing(copy):
        _first_word(copy)
    return names


def own_key(copy: Path) -> str:
    """The operator's own key. Raises ConfigurationError where only its hash is kept."""
    if not copy.exists():
        raise ConfigurationError(
            f"{copy} is not there: no key is kept in plain here; the operator has it, or `scripts/key add NAME` makes another"
        )
    return _first_word(copy).decode()


def _is_missing(copy: Path) -> bool:
    """Whether there is no key in a file: one of ours that is empty, or full of zeros, is what a crash of the machine left."""
    if not copy.exists():
        return True
    return os.access(copy, os.R_OK | os.W_OK) and not copy.read_bytes().strip(b"\0")


def _make(copy: Path) -> None:
    """Make a key, whole or not at all: whoever is killed meanwhile leaves no empty file that looks like one."""
    beside = copy.with_name(f"{copy.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    _write(beside, f"lb-{secrets.token_urlsafe(KEY_BYTES)}\n")
    beside.replace(copy)


def _follow(file: Path, keys: list[Key], name: str, copy: Path, limit: int | None = None) -> list[Key]:
    """The keys, with the one of this name taken from its plaintext copy; saved if that changes them."""
    own = Key(name, digest(_first_word(copy)), limit)
    if own.digest in {key.digest for key in keys}:
        return keys
    keys = [key for key in keys if key.name != name] + [own]
    save_keys(file, keys)
    return keys


def take_keys(file: Path, folder: Path | None) -> None:
    """Have the key file follow a folder: each file's first word is a key, under the file's name. None: it has no key.

    A key that an earlier start took from there, and that is gone from it, goes.
    """
    with _locked(file):
        before = read_keys(file)
        given = {plain.name: digest(_first_word(plain)) for plain in _files_in(folder)}
        keys = [key for key in before if not key.is_given and key.name not in given]
        limits = {key.name: key.limit for key in before}
        keys += [Key(name, found, limits.get(name), is_given=True) for name, found in given.items()]
        parse_keys("".join(f"{key.line()}\n" for key in keys), f"the keys of {folder}", may_be_empty=not before)
        if keys != before:
            save_keys(file, keys)


def _files_in(folder: Path | None) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    except OSError as error:
        raise ConfigurationError(
            f"LINGBI_PLAIN_KEYS_DIR={str(folder)!r} cannot be read: {error.strerror}; name a folder with one key a file"
        ) from None


def _first_word(file: Path) -> bytes:
    """The key in a plaintext file. Raises ConfigurationError for one that is empty, or cut off: it would be easy to guess."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"key file {file} cannot be read by user {os.getuid()}: {error.strerror}; chmod a+r it, in a closed folder"
        ) from None
    words = text.strip(b"\0").split()
    if not words:
        raise ConfigurationError(f"key file {file} is empty; put a key in it, or remove it")
    if CUT_OFF.fullmatch(text) and file.stat().st_uid == os.getuid():  # a mounted key may have any length
        raise ConfigurationError(
            f"key file {file} is cut off after {len(text)} bytes, as by a crash; write the whole key and an end of line "
            "into it, or remove it"
        )
    return words[0]


def save_keys(file: Path, keys: list[Key]) -> None:
    """Replace the key file in one step."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.new")
    _write(beside, "".join(f"{key.line()}\n" for key in keys))
    beside.replace(file)


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _close(copy: Path) -> None:
    """Take others' access to a plaintext key of ours, which may have come back from a copy with another mode.

    A file of somebody else is the operator's to close: Compose mounts one that this user must be able to read.
    """
    if copy.exists() and copy.stat().st_uid == os.getuid() and copy.stat().st_mode & 0o007 and os.access(copy, os.W_OK):
        copy.chmod(0o600)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stamp_of(file: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file does; None where it is missing."""
    try:
        status = file.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size
    except OSError:
        return None
