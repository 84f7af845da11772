"""What a server does about its weights before it loads them: no more than a look when all is well.

A folder that is used in place is never written to: what is known about it is kept in the state
folder. Where no lock says which bytes are right, that is the hashes of its remote code, so that a
change in what a start executes is reported.
"""

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
from lingbi.weights.hub import OTHER_WAYS, HubFailure
from lingbi.weights.lockfile import CODE_SUFFIX, Lock, changed_code
from lingbi.weights.progress import Progress, logged
from lingbi.weights.verification import describe, find_faults, hash_file, reason_to_recheck, write_marker

log = logging.getLogger("lingbi.weights")


def ensure(found: Found, settings: Settings, progress: Progress, stop: threading.Event | None = None) -> None:
    """Fetch the weights if they are missing, or verify them as far as possible; makes no request if they are right.

    Raises ConfigurationError, FetchError or CheckError.
    """
    settings = locked_by(found, settings)
    order = _order(found, settings)
    folder = WeightsFolder(found.path)
    with logged(progress):
        lock = folder.lock()
        if order and lock is None and not found.is_present:
            check_may_fetch(found, settings)
            fetch(order, progress, stop)
        else:
            _check_present(found, lock, settings, progress, stop)
    if is_own(found):
        folder.touch_used()


def locked_by(found: Found, settings: Settings) -> Settings:
    """The settings with this model's own lock, where LINGBI_WEIGHTS_LOCK is a folder with NAME.json for each model."""
    locks = settings.weights_lock
    if locks is None or not locks.is_dir():
        return settings
    return settings.model_copy(update={"weights_lock": locks / f"{found.served_name}.json"})


def check_locks(models: int, settings: Settings) -> None:
    """Raise ConfigurationError where one model's lock is given for several."""
    locks = settings.weights_lock
    if models > 1 and locks is not None and not locks.is_dir():
        raise ConfigurationError(
            f"LINGBI_WEIGHTS_LOCK={str(locks)!r} is one model's lock, and {models} models are served; give a folder "
            "with a lock for each, as in internlm-xcomposer2-vl-7b.json"
        )


def check_may_fetch(found: Found, settings: Settings) -> None:
    """Raise ConfigurationError if the weights are missing and must not be fetched."""
    if found.is_to_come and settings.fetch == "never":
        raise ConfigurationError(
            f"{found.hub_id} is not in {found.path}, and LINGBI_FETCH=never forbids fetching it; "
            f"set LINGBI_FETCH=missing, or {OTHER_WAYS}"
        )


def check_on_hub(found: Found, settings: Settings, progress: Progress) -> None:
    """Raise ConfigurationError if the weights are missing and the hub knows no such model or revision.

    If the hub does not answer, that is left to the fetch, which is patient.
    """
    order = _order(found, locked_by(found, settings))
    if order is None or found.is_present or order.required():
        return
    hub = hub_of(settings)
    progress.begin(f"asking {hub.endpoint} for the files of {order.model}", 0)
    with contextlib.suppress(HubFailure):
        hub.list_model(order.model, settings.hub_revision)


def is_own(found: Found) -> bool:
    """Whether lingbi may write to a folder: it is a model's own, not a link, and writable for this user."""
    return found.hub_id is not None and not found.path.is_symlink() and os.access(found.path, os.W_OK)


def _order(found: Found, settings: Settings) -> Order | None:
    """How to fetch a model, or None for a folder that belongs to no model of the hub."""
    return None if found.hub_id is None else Order(found.hub_id, found.path, settings)


def _check_present(
    found: Found, lock: Lock | None, settings: Settings, progress: Progress, stop: threading.Event | None
) -> None:
    """Check a folder against its own lock or the operator's or, without one, against the last start."""
    folder, record = WeightsFolder(found.path), Record(settings.state_dir, found.path)
    required = _required(settings, found, lock)
    if required is None:
        warn_of_changed_code(record)
        return
    warn_of_unlocked_code(folder.path, required)
    reasons = [reason_to_recheck(file, folder.path, required) for file in (folder.marker_file, record.marker_file)]
    if None in reasons:
        return
    log.info("full check of %s: %s", folder.path, reasons[0])
    order = _order(found, settings)
    if order and is_own(found) and lock is not None and settings.fetch != "never":
        fetch(order, progress, stop)  # checks everything, and fetches only what is wrong
        return
    faults = find_faults(folder.path, required.entries, progress, stop)
    if faults:
        raise CheckError(f"{folder.path} does not match its lock: {describe(faults)}; fetch the model again")
    write_marker(record.marker_file, folder.path, required, written_now=False)


def _required(settings: Settings, found: Found, lock: Lock | None) -> Lock | None:
    """The lock to check against: the operator's if there is one. Raises if the folder's own lock contradicts it."""
    if settings.weights_lock is None:
        return lock
    if not settings.weights_lock.exists():
        log.warning(
            "LINGBI_WEIGHTS_LOCK=%s: there is no such file, so %s, which is already there, is not checked against it; "
            "correct the path, or write the file with `scripts/weights lock`",
            settings.weights_lock,
            found.path,
        )
        return lock
    required = lockfile.read(settings.weights_lock)
    if lock is not None and lock.digest != required.digest:
        code = changed_code(lock, required)
        names = f" REMOTE CODE differs: {', '.join(code)}." if code else ""
        raise ConfigurationError(
            f"{found.path} holds other bytes (digest {lock.digest[:12]}) than {settings.weights_lock} requires "
            f"({required.digest[:12]}).{names} Update it to the lock with scripts/fetch --update, "
            "or serve another folder"
        )
    return required


class Record:
    """What this server remembers about one folder: a marker, and the hashes of its remote code."""

    def __init__(self, state_dir: Path, folder: Path):
        self.folder = folder.resolve()
        name = sha256(str(self.folder).encode()).hexdigest()[:16]
        self.marker_file = state_dir / "weights" / f"{name}.marker.json"
        self.code_file = state_dir / "weights" / f"{name}.code.json"

    def changed_code(self) -> list[str]:
        """Names of remote code that has changed since the last use; remembers what it is now."""
        code = {path.name: hash_file(path) for path in sorted(self.folder.glob(f"*{CODE_SUFFIX}"))}
        before: dict[str, str] = json.loads(self.code_file.read_text()) if self.code_file.exists() else code
        if code != before or not self.code_file.exists():
            write_text(self.code_file, json.dumps(code, indent=1))
        return sorted(path for path in before | code if before.get(path) != code.get(path))


def warn_of_changed_code(record: Record) -> None:
    """Log, conspicuously, which remote code has changed since the last start."""
    for path in record.changed_code():
        log.warning(
            "REMOTE CODE CHANGED: %s has changed since the last start, and this server executes it. "
            "Read it, or serve with a lock file (LINGBI_WEIGHTS_LOCK)",
            record.folder / path,
        )


def warn_of_unlocked_code(folder: Path, lock: Lock) -> None:
    """Log, conspicuously, which remote code is in the folder and not in the lock."""
    known = {entry.path for entry in lock.entries}
    for name in sorted(name for name in os.listdir(folder) if name.endswith(CODE_SUFFIX) and name not in known):
        log.warning(
            "REMOTE CODE NOT IN THE LOCK: nothing verifies %s. Remove it, or read it before you serve this folder",
            folder / name,
        )
