"""Writes an archive in the form that contents.py reads and verifies."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import IO

from host.bundle.contents import BLOCK_BYTES, CHUNK_BYTES, END_BYTES
from host.errors import Refusal


class Archive:
    """A tar file, also from a pipe, whose size is only known at its end. digests: {name: SHA-256} of what was written."""

    def __init__(self, stream: IO[bytes], folder: str):
        self.stream_to, self.folder = stream, folder
        self.digests: dict[str, str] = {}
        self.places: dict[str, int] = {}  # where the bytes of each begin

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        self.stream(name, io.BytesIO(text.encode()), mode)

    def file(self, name: str, file: Path) -> None:
        with file.open("rb") as source:
            self.stream(name, source, file.stat().st_mode & 0o755)

    def stream(self, name: str, source: IO[bytes], mode: int = 0o644) -> None:
        """Add the contents of a stream; the header is written when the size is known."""
        header_at, size, digest = self.stream_to.seek(0, io.SEEK_END), 0, hashlib.sha256()
        self.stream_to.write(bytes(BLOCK_BYTES))
        for data in iter(lambda: source.read(CHUNK_BYTES), b""):
            self.stream_to.write(data)
            digest.update(data)
            size += len(data)
        self.stream_to.write(bytes(-size % BLOCK_BYTES))
        info = tarfile.TarInfo(f"{self.folder}/{name}")
        info.size, info.mode = size, mode
        header = info.tobuf(tarfile.GNU_FORMAT)
        if len(header) != BLOCK_BYTES:
            raise Refusal(f"the name {name} is too long for the archive; shorten it to fewer than 80 letters")
        self.stream_to.seek(header_at)
        self.stream_to.write(header)
        self.digests[name], self.places[name] = digest.hexdigest(), header_at + BLOCK_BYTES

    def read_back(self, name: str) -> tarfile.TarFile:
        """An archive within this one, which was written before."""
        self.stream_to.seek(self.places[name])
        return tarfile.open(fileobj=self.stream_to, mode="r:")

    def end(self) -> None:
        self.stream_to.seek(0, io.SEEK_END)
        self.stream_to.write(bytes(END_BYTES))
