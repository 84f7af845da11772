"""Carries a model to a machine without internet: an archive or folder with its lock, verified on arrival.

The archive is a plain tar: first lock.json, then the files in the lock's order. A checksum file
beside it lets any machine check it with `sha256sum -c`. Both directions resume where they stopped:
an export keeps the bytes that are already written, an import the files that are already verified.
"""

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from lingbi.errors import CheckError, ConfigurationError
from lingbi.files import write_text
from lingbi.model.folder import inspect
from lingbi.weights import lockfile
from lingbi.weights.arrival import check_space
from lingbi.weights.folder import WeightsFolder, exclusive
from lingbi.weights.lockfile import Entry, Lock
from lingbi.weights.progress import Progress
from lingbi.weights.verification import describe, find_faults, hash_file, write_marker

LOCK_NAME = "lock.json"
COPY_BYTES = 1 << 20


def export(path: Path, target: Path, progress: Progress) -> Lock:
    """Write a fetched model to an archive (if target ends in .tar) or a folder; returns its lock.

    What an interrupted export left is checked and kept. Raises CheckError if the model's own files do
    not match its lock, and ConfigurationError if it was not fetched by lingbi.
    """
    folder = WeightsFolder(path)
    lock = folder.lock()
    if lock is None:
        raise ConfigurationError(f"{path} has no lock: only what scripts/fetch has fetched can be exported")
    faults = find_faults(path, lock.entries, progress)
    if faults:
        raise CheckError(f"{path} does not match its lock: {describe(faults)}; fetch it again before you export it")
    if target.suffix == ".tar":
        _write_archive(folder, lock, target, progress)
    else:
        _write_folder(folder, lock, target, progress)
    return lock


def _write_archive(folder: WeightsFolder, lock: Lock, target: Path, progress: Progress) -> None:
    """Write TARGET and TARGET.sha256."""
    progress.begin(f"writing {target.name}", lock.total_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.touch()
    with partial.open("r+b") as stream:
        writer = _ResumingWriter(stream)
        file = cast("IO[bytes]", writer)  # all that tarfile does with it in this mode is to write
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            archive.add(folder.lock_file, LOCK_NAME)
            for entry in sorted(lock.entries):
                archive.add(folder.path / entry.path, entry.path)
                progress.add(entry.size)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    write_text(target.with_name(target.name + ".sha256"), f"{writer.hex()}  {target.name}\n")
    os.replace(partial, target)


class _ResumingWriter:
    """Hashes what it is given, and writes only what an earlier run has not written yet."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._digest = stream, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        place = self._stream.tell()
        if self._stream.read(len(data)) != data:
            self._stream.seek(place)
            self._stream.write(data)
            self._stream.truncate()
        return len(data)

    def hex(self) -> str:
        return self._digest.hexdigest()


def _write_folder(folder: WeightsFolder, lock: Lock, target: Path, progress: Progress) -> None:
    progress.begin(f"copying to {target}", lock.total_bytes)
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(lock.entries):
        if not _is_right(target / entry.path, entry):
            with (folder.path / entry.path).open("rb") as stream:
                _copy(stream, target / entry.path)
        progress.add(entry.size)
    shutil.copyfile(folder.lock_file, target / LOCK_NAME)


def import_from(
    source: Path, place: Callable[[Lock], Path], progress: Progress, required: Path | None = None
) -> tuple[Lock, Path]:
    """Import an exported archive or folder into the folder place(lock); returns (lock, folder).

    Each file is verified before it counts, so an interrupted import resumes with the next file.
    required: a lock file that the import must equal. Raises CheckError or ConfigurationError.
    """
    with _opened(source) as (lock, files):
        path = place(lock)
        folder = WeightsFolder(path)
        if required is not None and lockfile.read(required).digest != lock.digest:
            raise ConfigurationError(
                f"{source} holds other bytes (digest {lock.digest[:12]}) than {required} requires; import another "
                "archive, or pass another --lock"
            )
        folder.prepare()
        with exclusive(folder, progress):
            old = folder.lock()
            if old is not None and old.digest != lock.digest:
                raise ConfigurationError(f"{path} already holds {old.model} at {old.revision}; pass another --to")
            _receive(folder, lock, files, source, progress)
            folder.place(lock, old)
            inspect(path)
            write_marker(folder.marker_file, path, lock, written_now=True)
    return lock, path


def _receive(
    folder: WeightsFolder, lock: Lock, files: Iterator[tuple[str, IO[bytes]]], source: Path, progress: Progress
) -> None:
    """Bring every file of the source that is not yet in its place, and right, into verified/."""
    wrong = find_faults(folder.path, lock.entries, progress)
    check_space(folder, [entry for entry in lock.entries if entry.path in wrong and not folder.is_verified(entry)])
    entries = {entry.path: entry for entry in lock.entries}
    progress.begin(f"importing {source.name}", lock.total_bytes)
    seen = set()
    for name, stream in files:
        entry = entries.get(name)
        if entry is None:
            continue
        seen.add(name)
        if name in wrong and not folder.is_verified(entry):
            _receive_file(stream, entry, folder, source)
        progress.add(entry.size)
    missing = {path: "is missing" for path in entries.keys() - seen if path in wrong}
    if missing:
        raise CheckError(f"{source} is not complete: {describe(missing)}; copy it here again, then import it to resume")


def _receive_file(stream: IO[bytes], entry: Entry, folder: WeightsFolder, source: Path) -> None:
    partial = folder.partial / entry.sha256
    try:
        _copy(stream, partial)
    except (tarfile.ReadError, EOFError) as error:
        raise CheckError(
            f"{source} is truncated in {entry.path}; copy it here again, then import it to resume"
        ) from error
    if hash_file(partial) != entry.sha256:
        partial.unlink()
        raise CheckError(
            f"{source}: {entry.path} does not match its SHA-256; copy it here again, then import it to resume"
        )
    os.replace(partial, folder.verified / entry.sha256)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[Lock, Iterator[tuple[str, IO[bytes]]]]]:
    """(lock, iterator of (path, stream)) of an exported archive or folder."""
    if source.is_dir():
        lock = lockfile.read(source / LOCK_NAME)
        yield lock, _files_of(source, lock)
        return
    try:
        archive = tarfile.open(source, "r|")  # noqa: SIM115  closed below; this try is only about opening it
    except (OSError, tarfile.ReadError) as error:
        raise ConfigurationError(
            f"{source} cannot be read as an exported archive: {error}; give the .tar or folder that an export wrote"
        ) from error
    with archive:
        lock = _lock_in(archive, source)
        yield lock, _members(archive, source)


def _files_of(source: Path, lock: Lock) -> Iterator[tuple[str, IO[bytes]]]:
    for entry in lock.entries:
        if (source / entry.path).is_file():
            with (source / entry.path).open("rb") as stream:
                yield entry.path, stream


def _lock_in(archive: tarfile.TarFile, source: Path) -> Lock:
    first = archive.next()
    stream = archive.extractfile(first) if first and first.name == LOCK_NAME and first.isfile() else None
    if stream is None:
        raise ConfigurationError(
            f"{source} does not start with {LOCK_NAME}, so it was not written by an export; give one that was"
        )
    try:
        text = stream.read().decode()
    except (tarfile.ReadError, UnicodeDecodeError) as error:
        raise CheckError(f"{source} is truncated or damaged in its {LOCK_NAME}; copy it here again") from error
    return lockfile.parse(text, f"{source} ({LOCK_NAME})")


def _members(archive: tarfile.TarFile, source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    try:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name, stream
    except tarfile.ReadError as error:
        raise CheckError(f"{source} is truncated; copy it here again, then import it to resume") from error


def _is_right(file: Path, entry: Entry) -> bool:
    return file.is_file() and file.stat().st_size == entry.size and hash_file(file) == entry.sha256


def _copy(stream: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        shutil.copyfileobj(stream, copy, COPY_BYTES)
