"""Carries a model to a machine without internet: an archive or folder with its lock, proven on arrival.

The archive is a plain tar of lock.json first and then the files, in the lock's order; a checksum
file beside it lets any machine check it with `sha256sum -c`. Both ways go on where they stopped:
an export keeps the bytes that it finds written already, an import the files that are proven.
"""

import contextlib
import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from lingbi.errors import CheckError, ConfigurationError
from lingbi.files import write_text
from lingbi.model.folder import inspect
from lingbi.weights import lockfile
from lingbi.weights.arrival import check_space
from lingbi.weights.folder import WeightsFolder, held
from lingbi.weights.lockfile import Entry, Lock
from lingbi.weights.progress import Progress
from lingbi.weights.verification import find_faults, hash_file, told, write_marker

LOCK_NAME = "lock.json"
COPY_BYTES = 1 << 20


def export(path: Path, target: Path, progress: Progress) -> Lock:
    """Write a fetched model as an archive (target ends in .tar) or a folder; returns its lock.

    What an interrupted export left is checked and kept. Raises CheckError where the model's own
    files are not right, ConfigurationError where it was not fetched or there is no room.
    """
    folder = WeightsFolder(path)
    lock = folder.lock()
    if lock is None:
        raise ConfigurationError(f"{path} has no lock: export what scripts/fetch has fetched")
    faults = find_faults(path, lock.entries, progress)
    if faults:
        raise CheckError(f"{path} is not what its lock says: {told(faults)}; fetch it again before it is exported")
    if target.suffix == ".tar":
        _write_archive(path, folder.lock_file, lock, target, progress)
    else:
        _write_folder(path, folder.lock_file, lock, target, progress)
    return lock


def _write_archive(path: Path, lock_file: Path, lock: Lock, target: Path, progress: Progress) -> None:
    """Write TARGET and TARGET.sha256; an archive that is there and right is left alone."""
    progress.begin(f"writing {target.name}", lock.total_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.touch()
    with partial.open("r+b") as stream:
        digest = _Resumed(stream)
        with tarfile.open(fileobj=digest, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            archive.add(lock_file, LOCK_NAME)
            for entry in sorted(lock.entries):
                archive.add(path / entry.path, entry.path)
                progress.add(entry.size)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    write_text(target.with_name(target.name + ".sha256"), f"{digest.hex()}  {target.name}\n")
    os.replace(partial, target)


class _Resumed:
    """A file that hashes what it is given and writes only what an earlier run has not written."""

    def __init__(self, stream):
        self._stream, self._digest = stream, hashlib.sha256()

    def write(self, data) -> int:
        self._digest.update(data)
        place = self._stream.tell()
        if self._stream.read(len(data)) != data:
            self._stream.seek(place)
            self._stream.write(data)
            self._stream.truncate()
        return len(data)

    def hex(self) -> str:
        return self._digest.hexdigest()


def _write_folder(path: Path, lock_file: Path, lock: Lock, target: Path, progress: Progress) -> None:
    progress.begin(f"copying to {target}", lock.total_bytes)
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(lock.entries):
        if not _is_right(target / entry.path, entry):
            with (path / entry.path).open("rb") as stream:
                _copy(stream, target / entry.path)
        progress.add(entry.size)
    shutil.copyfile(lock_file, target / LOCK_NAME)


def import_from(source: Path, place, progress: Progress, wanted: Path | None = None) -> tuple:
    """Bring an exported archive or folder into the folder place(lock); returns (lock, folder).

    Each file is proven before it counts, so an interrupted import goes on with the next one.
    wanted: a lock file that the import must equal. Raises CheckError or ConfigurationError.
    """
    with _opened(source) as (lock, files):
        path = place(lock)
        folder = WeightsFolder(path)
        if wanted is not None and lockfile.read(wanted).digest != lock.digest:
            raise ConfigurationError(f"{source} holds other bytes ({lock.digest[:12]}) than {wanted} asks for")
        folder.prepare()
        with held(folder, progress):
            old = folder.lock()
            if old is not None and old.digest != lock.digest:
                raise ConfigurationError(f"{path} holds {old.model} at {old.revision} already; give another --to")
            _take_in(folder, lock, files, source, progress)
            folder.place(lock, old)
            inspect(path)
            write_marker(folder.marker_file, path, lock, written_now=True)
    return lock, path


def _take_in(folder: WeightsFolder, lock: Lock, files, source: Path, progress: Progress) -> None:
    """Put every file of the source that is not there yet, and right, into verified/."""
    wrong = find_faults(folder.path, lock.entries, progress)
    check_space(folder, [entry for entry in lock.entries if entry.path in wrong and not _is_verified(folder, entry)])
    entries = {entry.path: entry for entry in lock.entries}
    progress.begin(f"importing {source.name}", lock.total_bytes)
    seen = set()
    for name, stream in files:
        entry = entries.get(name)
        if entry is None:
            continue
        seen.add(name)
        if name in wrong and not _is_verified(folder, entry):
            _prove_in(stream, entry, folder.partial / entry.sha256, folder.verified / entry.sha256, source)
        progress.add(entry.size)
    missing = {path: "is missing" for path in entries.keys() - seen if path in wrong}
    if missing:
        raise CheckError(f"{source} is not complete: {told(missing)}; copy it here again, then import again to go on")


def _is_verified(folder: WeightsFolder, entry: Entry) -> bool:
    """Whether an earlier import has proven it: it takes no more of the disk."""
    return (folder.verified / entry.sha256).exists()


def _prove_in(stream, entry: Entry, partial: Path, target: Path, source: Path) -> None:
    try:
        _copy(stream, partial)
    except (tarfile.ReadError, EOFError) as error:
        raise CheckError(f"{source} is cut short in {entry.path}; copy it here again, then import again") from error
    if hash_file(partial) != entry.sha256:
        partial.unlink()
        raise CheckError(f"{source}: {entry.path} has other bytes than its SHA-256; copy it here again")
    os.replace(partial, target)


@contextlib.contextmanager
def _opened(source: Path):
    """(lock, iterator of (path, stream)) of an exported archive or folder."""
    if source.is_dir():
        lock = lockfile.read(source / LOCK_NAME)
        yield lock, _files_of(source, lock)
        return
    try:
        archive = tarfile.open(source, "r|")  # noqa: SIM115  closed below; what is raised in between is another matter
    except (OSError, tarfile.ReadError) as error:
        raise ConfigurationError(f"{source} cannot be read as an exported archive: {error}") from error
    with archive:
        lock = _lock_in(archive, source)
        yield lock, _members(archive, source)


def _files_of(source: Path, lock: Lock):
    for entry in lock.entries:
        if (source / entry.path).is_file():
            with (source / entry.path).open("rb") as stream:
                yield entry.path, stream


def _lock_in(archive: tarfile.TarFile, source: Path) -> Lock:
    first = archive.next()
    if first is None or first.name != LOCK_NAME or not first.isfile():
        raise ConfigurationError(f"{source} does not begin with {LOCK_NAME}: it was not written by an export")
    try:
        text = archive.extractfile(first).read().decode()
    except (tarfile.ReadError, UnicodeDecodeError) as error:
        raise CheckError(f"{source} is cut short or spoiled in its {LOCK_NAME}; copy it here again") from error
    return lockfile.parse(text, f"{source} ({LOCK_NAME})")


def _members(archive: tarfile.TarFile, source: Path):
    try:
        for member in archive:
            if member.isfile():
                yield member.name, archive.extractfile(member)
    except tarfile.ReadError as error:
        raise CheckError(f"{source} is cut short; copy it here again, then import again to go on") from error


def _is_right(file: Path, entry: Entry) -> bool:
    return file.is_file() and file.stat().st_size == entry.size and hash_file(file) == entry.sha256


def _copy(stream, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        shutil.copyfileobj(stream, copy, COPY_BYTES)
