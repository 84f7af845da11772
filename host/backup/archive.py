"""The archive: a tar with a manifest that says which bytes it holds. Everything is checked before anything is used."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.env_file import ROOT
from host.errors import Refusal

FORMAT = 1
MANIFEST = "manifest.json"
MAX_BYTES = 16 << 20  # of a file: keys, settings and locks are small
MAX_DATABASE_BYTES = 1 << 30
KINDS = ("env", "secrets", "tls", "servers", "files", "state", "gateway", "locks", "volume")
NAME = re.compile(r"[^/\\\x00-\x1f]+(/[^/\\\x00-\x1f]+)*")


@dataclass(frozen=True)
class Item:
    """A file: its name in the archive, its bytes, and its permissions."""

    name: str
    data: bytes
    mode: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def manifest_of(items: Iterable[Item]) -> dict[str, Any]:
    files = {item.name: {"size": len(item.data), "sha256": item.sha256, "mode": item.mode} for item in items}
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"format": FORMAT, "lingbi": version, "made": made, "files": files}


def write(file: Path, items: list[Item]) -> None:
    """Write an archive in one step, for its owner only."""
    manifest = json.dumps(manifest_of(items), indent=1).encode()
    descriptor, name = tempfile.mkstemp(dir=str(file.parent), prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for item in [Item(MANIFEST, manifest, 0o600), *items]:
                    entry = tarfile.TarInfo(item.name)
                    entry.size, entry.mode, entry.mtime = len(item.data), item.mode, int(time.time())
                    archive.addfile(entry, io.BytesIO(item.data))
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
    if not items or items[0].name != MANIFEST:
        raise Refusal(f"{file} does not begin with {MANIFEST}; give a file that scripts/backup wrote")
    manifest = parsed(items[0].data, file)
    check_files(items[1:], manifest, file)
    return manifest, items[1:]


def item_of(archive: tarfile.TarFile, entry: tarfile.TarInfo, file: Path) -> Item:
    """A member, read into memory. Raises Refusal for one that a backup never holds."""
    fault = fault_of(entry)
    if fault:
        raise Refusal(
            f"{file}: {entry.name!r} {fault}; nothing was restored, this is no file that scripts/backup wrote"
        )
    stream = archive.extractfile(entry)
    if stream is None:
        raise Refusal(f"{file}: {entry.name!r} is not a file; nothing was restored")
    data = stream.read()
    if len(data) != entry.size:
        raise Refusal(f"{file} ends within {entry.name!r}; it was cut off on its way, copy it again")
    return Item(entry.name, data, entry.mode & 0o755)


def fault_of(entry: tarfile.TarInfo) -> str | None:
    parts = entry.name.split("/")
    if not NAME.fullmatch(entry.name) or ".." in parts or "." in parts:
        return "leaves the folder"
    if not entry.isreg():
        return "is not a plain file"
    if entry.size > most_bytes(entry.name):
        return f"has {entry.size} bytes"
    if entry.name != MANIFEST and parts[0] not in KINDS:
        return "is of no known kind"
    return None


def most_bytes(name: str) -> int:
    """The most that a file may have; it is held in memory."""
    return MAX_DATABASE_BYTES if name.endswith("/accounts/accounts.db") else MAX_BYTES


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
    listed, names = manifest["files"], [item.name for item in items]
    wrong = [f"{name!r} stands there twice" for name in names if names.count(name) > 1]
    wrong += [f"{name!r} is missing" for name in listed if name not in names]
    wrong += [f"{name!r} is not in the manifest" for name in names if name not in listed]
    wrong += [
        f"{item.name!r} does not have the SHA-256 that the manifest says"
        for item in items
        if item.name in listed and listed[item.name].get("sha256") != item.sha256
    ]
    if wrong:
        raise Refusal(f"{file}: {wrong[0]}; nothing was restored, take another copy of the backup")
