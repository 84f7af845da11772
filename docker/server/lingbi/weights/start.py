"""What a server does about its weights before it loads them: nothing but a look where all is well."""

import contextlib
import json
import logging
import os
import threading
from hashlib import sha256
from pathlib import Path

from lingbi.errors import CheckError, ConfigurationError
from lingbi.files import write_text
from lingbi.model.resolve import Found
from lingbi.settings import Settings
from lingbi.weights import lockfile
from lingbi.weights.fetch import Order, fetch, hub_of
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.hub import HubFailure
from lingbi.weights.lockfile import CODE_SUFFIX, Lock, changed_code
from lingbi.weights.progress import Progress, logged
from lingbi.weights.verification import find_doubt, find_faults, hash_file, told, write_marker

log = logging.getLogger("lingbi.weights")


def ensure(found: Found, settings: Settings, progress: Progress, stop: threading.Event | None = None) -> None:
    """Have the weights there and proven as far as they can be; makes no request where they are.

    Raises ConfigurationError, FetchError or CheckError.
    """
    folder = WeightsFolder(found.path)
    with logged(progress):
        lock = folder.lock()
        if lock is None and found.is_to_come:
            check_may_fetch(found, settings)
            fetch(_order(found, settings), progress, stop)
        else:
            _check_present(found, folder, lock, settings, progress, stop)
    if is_own(found):
        folder.touch_used()


def check_may_fetch(found: Found, settings: Settings) -> None:
    """Raise ConfigurationError where weights are missing and are not to be fetched."""
    if found.is_to_come and settings.fetch == "never":
        raise ConfigurationError(
            f"{found.hub_id} is not in {found.path}, and LINGBI_FETCH=never forbids to fetch it; fetch it elsewhere "
            "and import it (scripts/weights import), or set LINGBI_FETCH=missing"
        )


def check_on_hub(found: Found, settings: Settings) -> None:
    """Raise ConfigurationError where weights are to be fetched and the hub knows no such model or revision.

    A hub that does not answer is left to the fetch, which has patience.
    """
    if not found.is_to_come or _order(found, settings).wanted():
        return
    with contextlib.suppress(HubFailure):
        hub_of(settings).list_model(found.hub_id, settings.hub_revision)


def is_own(found: Found) -> bool:
    """Whether a folder is lingbi's to write: under the models folder, no link, and writable for this user."""
    return found.hub_id is not None and not found.path.is_symlink() and os.access(found.path, os.W_OK)


def _order(found: Found, settings: Settings) -> Order:
    return Order(found.hub_id, found.path, settings)


def _check_present(found: Found, folder: WeightsFolder, lock: Lock | None, settings: Settings, progress, stop) -> None:
    """Compare a folder with its own lock, or the operator's, or with the last start."""
    record = Record(settings.state_dir, found.path)
    wanted = _operators(settings, found, lock)
    if wanted is None:
        warn_of_changed_code(record)
        return
    warn_of_strange_code(folder.path, wanted)
    if any(find_doubt(file, folder.path, wanted) is None for file in (folder.marker_file, record.marker_file)):
        return
    log.info("full check of %s: %s", folder.path, find_doubt(folder.marker_file, folder.path, wanted))
    if is_own(found) and lock is not None and settings.fetch != "never":
        fetch(_order(found, settings), progress, stop)  # checks everything, and fetches only what is wrong
        return
    faults = find_faults(folder.path, wanted.entries, progress, stop)
    if faults:
        raise CheckError(f"{folder.path} is not what its lock says: {told(faults)}; fetch the model again")
    write_marker(record.marker_file, folder.path, wanted, written_now=False)


def _operators(settings: Settings, found: Found, lock: Lock | None) -> Lock | None:
    """The lock that counts: the operator's where there is one. Raises where the folder's own contradicts it."""
    if settings.weights_lock is None:
        return lock
    if not settings.weights_lock.exists():
        log.warning(
            "LINGBI_WEIGHTS_LOCK=%s: there is no such file, so %s, which is there already, is not held to it; mend the "
            "path, or write the file with `scripts/weights lock`",
            settings.weights_lock,
            found.path,
        )
        return lock
    wanted = lockfile.read(settings.weights_lock)
    if lock is not None and lock.digest != wanted.digest:
        code = changed_code(lock, wanted)
        names = f" REMOTE CODE differs: {', '.join(code)}." if code else ""
        raise ConfigurationError(
            f"{found.path} holds other bytes ({lock.digest[:12]}) than {settings.weights_lock} asks for "
            f"({wanted.digest[:12]}).{names} Bring it to the lock with scripts/fetch --update, or serve another folder"
        )
    return wanted


class Record:
    """What this server remembers of one folder: a marker, and the code's hashes."""

    def __init__(self, state_dir: Path, folder: Path):
        self.folder = folder.resolve()
        name = sha256(str(self.folder).encode()).hexdigest()[:16]
        self.marker_file = state_dir / "weights" / f"{name}.marker.json"
        self.code_file = state_dir / "weights" / f"{name}.code.json"

    def changed_code(self) -> list:
        """Remote code that is not as it was at the last use; remembers what it is now."""
        code = {path.name: hash_file(path) for path in sorted(self.folder.glob("*.py"))}
        before = json.loads(self.code_file.read_text()) if self.code_file.exists() else code
        if code != before or not self.code_file.exists():
            write_text(self.code_file, json.dumps(code, indent=1))
        return sorted(path for path in before | code if before.get(path) != code.get(path))


def warn_of_changed_code(record: Record) -> None:
    """Log, for all to see, which remote code changed since the last start."""
    for path in record.changed_code():
        log.warning(
            "REMOTE CODE CHANGED: %s is not as it was at the last start; this server executes it. "
            "Read it, or serve by a lock file (LINGBI_WEIGHTS_LOCK)",
            record.folder / path,
        )


def warn_of_strange_code(folder: Path, lock: Lock) -> None:
    """Log, for all to see, which remote code lies beside what the lock proves."""
    known = {entry.path for entry in lock.entries}
    for name in sorted(name for name in os.listdir(folder) if name.endswith(CODE_SUFFIX) and name not in known):
        log.warning(
            "REMOTE CODE NOT IN THE LOCK: %s; nobody has proven it. Remove it, or read it before you serve beside it",
            folder / name,
        )
