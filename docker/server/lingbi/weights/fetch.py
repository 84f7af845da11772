"""Fetches a model into a folder: every file verified and the folder locked, or nothing in place at all.

`scripts/fetch`, the start of a server and deployments all run this code. No file is put where the
model's files belong before all have arrived with the right SHA-256; what an interrupted fetch leaves
in .lingbi/ is where the next one resumes.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError, FetchError
from lingbi.model.folder import check_architecture, inspect, read_config
from lingbi.settings import Settings
from lingbi.weights import lockfile
from lingbi.weights.arrival import arrived_bytes, check_space
from lingbi.weights.folder import WeightsFolder, exclusive
from lingbi.weights.hub import Aborted, Hub, read_token
from lingbi.weights.lockfile import Entry, Lock, changed_code
from lingbi.weights.progress import Progress
from lingbi.weights.transfer import Patience, Transfer
from lingbi.weights.verification import find_faults, reason_to_recheck, size_and_time, write_marker

log = logging.getLogger("lingbi.weights")
CONFIG = "config.json"


@dataclass(frozen=True)
class Order:
    """What to fetch, where to, and whether a folder with another revision may be updated to this one."""

    model: str
    folder: Path
    settings: Settings
    update: bool = False

    def required(self) -> Lock | None:
        """The lock that the operator requires (LINGBI_WEIGHTS_LOCK), or None if it is still to be written.

        Raises ConfigurationError for a lock of another model.
        """
        file = self.settings.weights_lock
        if file is None or not file.exists():
            return None
        lock = lockfile.read(file)
        if lock.model.lower() != self.model.lower():
            raise ConfigurationError(f"lock file {file} is for {lock.model}, not {self.model}; pass the right one")
        return lock


def fetch(order: Order, progress: Progress, stop: threading.Event | None = None) -> Lock:
    """Fetch what the folder lacks of the model; returns its lock. Makes no request if nothing is missing.

    Raises ConfigurationError (exit status 2), FetchError (3) or CheckError (1); a later fetch resumes.
    """
    folder, stop = WeightsFolder(order.folder), stop or threading.Event()
    required = order.required()
    folder.prepare()
    try:
        with exclusive(folder, progress):
            lock = _Fetch(order, folder, progress, stop).run(required)
        if order.settings.weights_lock and required is None:
            lock.write(order.settings.weights_lock)
    except OSError as error:
        raise FetchError(
            f"{order.folder}: {error.strerror or error}; free space or repair the disk, then run it again to resume"
        ) from error
    return lock


class _Fetch:
    """One fetch, while the folder's mutex is held."""

    def __init__(self, order: Order, folder: WeightsFolder, progress: Progress, stop: threading.Event):
        self.order, self.folder, self.progress, self.stop = order, folder, progress, stop
        self.patience = Patience(order.settings.fetch_patience_s, stop)

    def run(self, required: Lock | None) -> Lock:
        old = self.folder.lock()
        lock = choose(self.order, old, required)
        marker = self.folder.marker_file
        if lock is not None and lock is old and reason_to_recheck(marker, self.folder.path, lock) is None:
            return lock
        hub = hub_of(self.order.settings, self.stop)
        lock = lock or self._list(hub)
        self._complete(hub, lock)
        for path in changed_code(old, lock):
            log.warning("REMOTE CODE CHANGED: %s in %s; read it before you serve it", path, self.folder.path)
        is_new = self.folder.place(lock, old)
        inspect(self.folder.path)
        write_marker(marker, self.folder.path, lock, written_now=is_new)
        return lock

    def _list(self, hub: Hub) -> Lock:
        model, revision = self.order.model, self.order.settings.hub_revision
        self.progress.begin(f"asking {hub.endpoint} for the files of {model}", 0)
        lock = self.patience.call(hub.list_model, model, revision)
        if CONFIG not in {entry.path for entry in lock.entries}:
            raise ConfigurationError(
                f"{model} at {revision} holds no {CONFIG}, so it is not a model that lingbi serves; "
                "check the model's id and the name of the revision"
            )
        return lock

    def _complete(self, hub: Hub, lock: Lock) -> None:
        """Fetch until every file of the lock is verified, either in its place or in verified/."""
        missing = self._missing(lock)
        check_space(self.folder, missing)
        arrived = sum(arrived_bytes(self.folder, entry) for entry in missing)
        present = lock.total_bytes - sum(entry.size for entry in missing)
        self.progress.begin("fetching weights", lock.total_bytes, present + arrived)
        connections = self.order.settings.fetch_connections
        transfer = Transfer(hub, lock.model, lock.revision, connections, self.patience, self.progress)
        self.patience.progress()  # the time so far went into checking what was there
        # The configuration comes first and alone, so that another kind of model is refused before its weights arrive.
        for entries in ([entry for entry in missing if entry.path == CONFIG], missing):
            transfer.fetch(self._unverified(entries), self.folder)
            self._check_config(lock)
        lost = [entry.path for entry in self._unverified(missing)]
        if lost:  # another program has changed .lingbi/
            raise FetchError(f"{', '.join(lost[:3])} did not arrive in {self.folder.verified}; run it again to resume")

    def _missing(self, lock: Lock) -> list[Entry]:
        """Entries whose files are neither in verified/ nor, checked now, in their places."""
        rest = self._unverified(lock.entries)
        placed = [entry for entry in rest if self._has_size(entry)]
        faults = find_faults(self.folder.path, placed, self.progress, self.stop)
        if self.stop.is_set():
            raise Aborted("aborted while the files that are already there were being checked")
        for path in faults:
            log.warning("%s %s; it is replaced once the right one has arrived", self.folder.path / path, faults[path])
        right = {entry.path for entry in placed} - set(faults)
        return [entry for entry in rest if entry.path not in right]

    def _has_size(self, entry: Entry) -> bool:
        present = size_and_time(self.folder.path, entry.path)
        return present is not None and present[0] == entry.size

    def _unverified(self, entries: Iterable[Entry]) -> list[Entry]:
        return [entry for entry in entries if not self.folder.is_verified(entry)]

    def _check_config(self, lock: Lock) -> None:
        (entry,) = (entry for entry in lock.entries if entry.path == CONFIG)
        file = self.folder.verified / entry.sha256
        file = file if file.exists() else self.folder.path / CONFIG
        check_architecture(lock.model, read_config(file))


def hub_of(settings: Settings, stop: threading.Event | None = None) -> Hub:
    """The hub that the settings name."""
    token = read_token(settings.hub_token_file) if settings.hub_token_file else None
    return Hub(settings.hub_endpoint, token, stop, settings.fetch_patience_s)


def choose(order: Order, old: Lock | None, required: Lock | None) -> Lock | None:
    """The lock to fetch by, or None to ask the hub. Raises ConfigurationError if the folder holds another model."""
    if required is not None and old is not None and old.digest == required.digest:
        return old
    if old is None or order.update:
        return required
    if required is not None:
        raise ConfigurationError(
            f"{order.folder} holds other bytes (digest {old.digest[:12]}) than {order.settings.weights_lock} requires "
            f"({required.digest[:12]}); pass --update to replace them, or another folder in --to"
        )
    if (old.model.lower(), old.revision) != (order.model.lower(), order.settings.hub_revision):
        raise ConfigurationError(
            f"{order.folder} holds {old.model} at {old.revision}, but {order.model} at {order.settings.hub_revision} "
            "was requested; pass --update to replace it, or another folder in --to"
        )
    return old
