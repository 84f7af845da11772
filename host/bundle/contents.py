"""What an archive of scripts/bundle holds, packed or unpacked: the names of its files, their bytes and checksums."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from host.errors import Refusal

BLOCK_BYTES, CHUNK_BYTES = 512, 1 << 20
END_BYTES = 2 * BLOCK_BYTES


class Contents(Protocol):
    """Files by name."""

    def names(self) -> list[str]:
        """All files, in the order in which they are read best."""

    def open(self, name: str) -> IO[bytes]:
        """A file to read. Raises KeyError."""


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """The contents of an archive, or of the folder into which it was unpacked. Raises Refusal."""
    if path.is_dir():
        yield Folder(path)
        return
    try:
        with tarfile.open(path, "r:") as archive:
            yield Packed(path, archive)
    except (OSError, tarfile.TarError) as error:
        raise Refusal(f"{path} cannot be read as an archive: {error}") from None


def digest(source: IO[bytes]) -> str:
    """The SHA-256 of what is left to read, in hexadecimal digits."""
    hashed = hashlib.sha256()
    for data in iter(lambda: source.read(CHUNK_BYTES), b""):
        hashed.update(data)
    return hashed.hexdigest()


class Folder:
    """An unpacked archive."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        every = sorted(self.path.rglob("*"))
        links = [file for file in every if file.is_symlink()]
        if links:
            raise Refusal(f"{links[0]} is a link, and a bundle has none; unpack it anew")
        return [file.relative_to(self.path).as_posix() for file in every if not file.is_dir()]

    def open(self, name: str) -> IO[bytes]:
        try:
            return (self.path / name).open("rb")
        except FileNotFoundError:
            raise KeyError(name) from None


class Packed:
    """An archive as scripts/bundle writes it: ordinary files one after the other, below one folder.

    Whatever else a tar file can be is refused: another program could unpack it as something else than was verified.
    """

    def __init__(self, path: Path, archive: tarfile.TarFile):
        self.path, self.archive = path, archive
        self.members: dict[str, tarfile.TarInfo] = {}
        folder, at = "", 0
        for member in archive:
            top, _, name = member.name.partition("/")
            folder = folder or top
            is_plain = member.isreg() and member.offset == at and member.offset_data == at + BLOCK_BYTES
            is_safe = (
                name and ".." not in name.split("/") and top == folder not in ("", "..") and not member.mode & ~0o755
            )
            if not is_plain or not is_safe or name in self.members:
                raise Refusal(
                    f"{path}: {member.name} is not as scripts/bundle writes it; this archive is made by something else"
                )
            self.members[name] = member
            at = member.offset_data + member.size + -member.size % BLOCK_BYTES
        if path.stat().st_size != at + END_BYTES:
            raise Refusal(
                f"{path}: it does not end after its last file, {next(reversed(self.members), 'of which there is none')}; copy it again"
            )

    def names(self) -> list[str]:
        return list(self.members)

    def open(self, name: str) -> IO[bytes]:
        found = self.archive.extractfile(self.members[name])
        assert found is not None  # they are all ordinary files
        return found
