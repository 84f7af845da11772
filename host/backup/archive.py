"""The archive: a tar with a manifest that says which bytes it holds. Everything is checked before anything is used.

Nothing large is held in memory: files are read, written and compared a piece at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from host.env_file import ROOT
from host.errors import Refusal

FORMAT = 2  # 1 had the manifest at its beginning
MANIFEST = "manifest.json"
MAX_BYTES = 16 << 20  # of a file: keys, settings and locks are small
LARGE = re.compile(r"(volume/)?state/(accounts|files)/.+")  # what may have any size: the accounts, and uploaded files
UPLOADED = re.compile(r"(volume/)?state/files/.+")
KINDS = ("env", "secrets", "tls", "servers", "files", "state", "gateway", "locks", "volume")
NAME = re.compile(r"[^/\\\x00-\x1f]+(/[^/\\\x00-\x1f]+)*")
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Item:
    """A file of an archive: its name there, its permissions, and where its bytes are."""

    name: str
    mode: int
    size: int
    sha256: str
    archive: Path
    place: int

    def open(self) -> BinaryIO:
        """Its bytes, to read."""
        return io.BufferedReader(_Within(self.archive, self.place, self.size), PIECE_BYTES)

    @property
    def data(self) -> bytes:
        """All its bytes; of small files only."""
        with self.open() as stream:
            return stream.read()


class _Within(io.RawIOBase):
    """A stretch of a file."""

    def __init__(self, file: Path, place: int, size: int) -> None:
        super().__init__()
        self._file, self._left = file.open("rb"), size
        self._file.seek(place)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(self._left, len(buffer)))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def write(archive: tarfile.TarFile, name: str, mode: int, size: int, stream: Any) -> None:
    """Write so many bytes of a stream as a plain file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, mode, int(time.time())
    archive.addfile(entry, stream)


class Writer:
    """Writes an archive. Each file is read once, as it comes; the manifest follows them."""

    def __init__(self, stream: BinaryIO) -> None:
        self.archive = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)
        self.files: dict[str, dict[str, Any]] = {}

    def add(self, name: str, mode: int, size: int, stream: BinaryIO) -> None:
        """Write a file, unless one of this name was written. Raises Refusal for what scripts/restore would refuse."""
        if name in self.files:
            return
        if size > MAX_BYTES and not LARGE.fullmatch(name):
            raise Refusal(
                f"{name} has {size >> 20} MiB, more than such a file can have in a backup; is it the right one?"
            )
        hashed = _Hashed(stream)
        write(self.archive, name, mode, size, hashed)
        self.files[name] = {"size": size, "sha256": hashed.sha256.hexdigest(), "mode": mode}

    def add_bytes(self, name: str, mode: int, data: bytes) -> None:
        self.add(name, mode, len(data), io.BytesIO(data))

    def finish(self) -> None:
        manifest = json.dumps(manifest_of(self.files), indent=1).encode()
        write(self.archive, MANIFEST, 0o600, len(manifest), io.BytesIO(manifest))
        self.archive.close()


class _Hashed:
    """Reads a stream, and hashes what is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.sha256 = stream, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.sha256.update(data)
        return data


def manifest_of(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """files: {name: {"size", "sha256", "mode"}}."""
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"format": FORMAT, "lingbi": version, "made": made, "files": dict(files)}


@contextlib.contextmanager
def written(file: Path) -> Iterator[Writer]:
    """A writer of an archive that is there in one step, for its owner only; nothing is there if the block raises."""
    descriptor, name = tempfile.mkstemp(dir=str(file.parent), prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            writer = Writer(stream)
            yield writer
            writer.finish()
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, str(file))
    except BaseException:
        os.unlink(name)
        raise


def read(file: Path) -> tuple[dict[str, Any], list[Item]]:
    """The manifest and the files. Raises Refusal that names what is wrong; nothing is unpacked."""
    try:
        with tarfile.open(str(file), "r:") as archive:
            items = [item_of(archive, entry, file) for entry in archive]
    except (OSError, tarfile.TarError, EOFError) as error:
        raise Refusal(f"{file} cannot be read as a backup: {error}; give a file that scripts/backup wrote") from None
    found = [item for item in items if item.name == MANIFEST]
    if not found:
        raise Refusal(f"{file} has no {MANIFEST}; it was cut off on its way, or scripts/backup did not write it")
    manifest = parsed(found[0].data, file)
    others = [item for item in items if item is not found[0]]
    check_files(others, manifest, file)
    return manifest, others


def item_of(archive: tarfile.TarFile, entry: tarfile.TarInfo, file: Path) -> Item:
    """A member, whose bytes are read and hashed. Raises Refusal for one that a backup never holds."""
    fault = fault_of(entry)
    if fault:
        raise Refusal(
            f"{file}: {entry.name!r} {fault}; nothing was restored, this is no file that scripts/backup wrote"
        )
    sha256 = hashlib.sha256()
    item = Item(entry.name, entry.mode & 0o755, entry.size, "", file, entry.offset_data)
    left = entry.size
    with item.open() as stream:
        while data := stream.read(PIECE_BYTES):
            sha256.update(data)
            left -= len(data)
    if left:
        raise Refusal(f"{file} ends within {entry.name!r}; it was cut off on its way, copy it again")
    return Item(item.name, item.mode, item.size, sha256.hexdigest(), file, item.place)


def fault_of(entry: tarfile.TarInfo) -> str | None:
    parts = entry.name.split("/")
    if not NAME.fullmatch(entry.name) or ".." in parts or "." in parts:
        return "leaves the folder"
    if not entry.isreg() or entry.issparse():
        return "is not a plain file"
    if entry.size > MAX_BYTES and not LARGE.fullmatch(entry.name):
        return f"has {entry.size} bytes"
    if entry.name != MANIFEST and parts[0] not in KINDS:
        return "is of no known kind"
    return None


def parsed(data: bytes, file: Path) -> dict[str, Any]:
    """The manifest. Raises Refusal for one of a newer format, naming both."""
    try:
        manifest: dict[str, Any] = json.loads(data)
        number, version, files = manifest["format"], manifest["lingbi"], manifest["files"]
        is_sound = isinstance(number, int) and isinstance(version, str) and isinstance(files, dict)
    except (ValueError, LookupError, TypeError):
        is_sound = False
    if not is_sound:
        raise Refusal(f"{file}: its {MANIFEST} cannot be read; give a file that scripts/backup wrote")
    if number > FORMAT:
        raise Refusal(
            f"{file} is of format {number}, written by lingbi {version}; this one reads formats up to {FORMAT}: "
            f"restore it with lingbi {version} or later"
        )
    return manifest


def check_files(items: list[Item], manifest: dict[str, Any], file: Path) -> None:
    """Raise Refusal for the first file that is not as the manifest says."""
    listed, names = manifest["files"], Counter(item.name for item in items)
    wrong = [f"{name!r} stands there twice" for name, count in names.items() if count > 1]
    wrong += [f"{name!r} is missing" for name in listed if name not in names]
    wrong += [f"{name!r} is not in the manifest" for name in names if name not in listed]
    wrong += [
        f"{item.name!r} does not have the SHA-256 that the manifest says"
        for item in items
        if item.name in listed and listed[item.name].get("sha256") != item.sha256
    ]
    if wrong:
        raise Refusal(f"{file}: {wrong[0]}; nothing was restored, take another copy of the backup")
