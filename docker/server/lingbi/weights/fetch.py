"""Fetches a model into a folder: whole, proven and locked, or not at all.

One code for `scripts/fetch`, a server's start and deployments. Nothing is where the model's files
belong before everything has arrived and its SHA-256 is right; what an ended fetch leaves in
.lingbi/ is where the next one goes on.
"""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError, FetchError
from lingbi.model.folder import check_architecture, inspect, read_config
from lingbi.settings import Settings
from lingbi.weights import lockfile
from lingbi.weights.arrival import arrived_bytes, check_space
from lingbi.weights.folder import WeightsFolder, held
from lingbi.weights.hub import Hub, Stopped, read_token
from lingbi.weights.lockfile import Entry, Lock, changed_code
from lingbi.weights.progress import Progress
from lingbi.weights.transfer import Patience, Transfer
from lingbi.weights.verification import find_doubt, find_faults, size_and_time, write_marker

log = logging.getLogger("lingbi.weights")
CONFIG = "config.json"


@dataclass(frozen=True)
class Order:
    """What to fetch, and whether a folder that holds another revision may be brought to this one."""

    model: str
    folder: Path
    settings: Settings
    update: bool = False

    def wanted(self) -> Lock | None:
        """The lock that the fetch is held to, or None where it is to be written."""
        file = self.settings.weights_lock
        if file is None or not file.exists():
            return None
        lock = lockfile.read(file)
        if lock.model.lower() != self.model.lower():
            raise ConfigurationError(f"lock file {file} is for {lock.model}, not {self.model}; give the right one")
        return lock


def fetch(order: Order, progress: Progress, stop: threading.Event | None = None) -> Lock:
    """Bring the folder to hold the model; returns its lock. Nothing is asked of the hub where all is right.

    Raises ConfigurationError (exit 2), FetchError (3) or CheckError (1); a later fetch goes on.
    """
    folder, stop = WeightsFolder(order.folder), stop or threading.Event()
    wanted = order.wanted()
    folder.prepare()
    try:
        with held(folder, progress):
            lock = _Fetch(order, folder, progress, stop).run(wanted)
        if order.settings.weights_lock and wanted is None:
            lock.write(order.settings.weights_lock)
    except OSError as error:
        raise FetchError(
            f"{order.folder}: {error.strerror or error}; free space or mend the disk, and run it again to go on"
        ) from error
    return lock


class _Fetch:
    """One fetch under the folder's mutex."""

    def __init__(self, order: Order, folder: WeightsFolder, progress: Progress, stop: threading.Event):
        self.order, self.folder, self.progress, self.stop = order, folder, progress, stop
        self.patience = Patience(order.settings.fetch_patience_s, stop)

    def run(self, wanted: Lock | None) -> Lock:
        old = self.folder.lock()
        lock = choose(self.order, old, wanted)
        if lock is not None and lock is old and find_doubt(self.folder.marker_file, self.folder.path, lock) is None:
            return lock
        hub = hub_of(self.order.settings, self.stop)
        lock = lock or self._list(hub)
        self._bring(hub, lock)
        for path in changed_code(old, lock):
            log.warning("REMOTE CODE CHANGED: %s in %s; read it before you serve it", path, self.folder.path)
        is_new = self.folder.place(lock, old)
        inspect(self.folder.path)
        write_marker(self.folder.marker_file, self.folder.path, lock, written_now=is_new)
        return lock

    def _list(self, hub: Hub) -> Lock:
        model, revision = self.order.model, self.order.settings.hub_revision
        self.progress.begin(f"asking {hub.endpoint} for the files of {model}", 0)
        lock = self.patience.call(hub.list_model, model, revision)
        if CONFIG not in {entry.path for entry in lock.entries}:
            raise ConfigurationError(f"{model} at {revision} holds no {CONFIG}: it is no model that lingbi serves")
        return lock

    def _bring(self, hub: Hub, lock: Lock) -> None:
        """Have every file of the lock proven: in its place or in verified/."""
        missing = self._missing(lock)
        check_space(self.folder, missing)
        arrived = sum(arrived_bytes(self.folder, entry) for entry in missing)
        there = lock.total_bytes - sum(entry.size for entry in missing)
        self.progress.begin("fetching weights", lock.total_bytes, there + arrived)
        connections = self.order.settings.fetch_connections
        transfer = Transfer(hub, lock.model, lock.revision, connections, self.patience, self.progress)
        self.patience.progress()  # what took long until now was the check of what is there
        # The configuration alone first: another kind of model is refused before its weights come.
        for entries in ([entry for entry in missing if entry.path == CONFIG], missing):
            transfer.fetch([entry for entry in entries if not self._is_verified(entry)], self.folder)
            self._check_config(lock)
        unproven = [entry.path for entry in missing if not self._is_verified(entry)]
        if unproven:  # another program has been in .lingbi/
            raise FetchError(
                f"{', '.join(unproven[:3])} did not arrive in {self.folder.verified}; run it again to go on"
            )

    def _missing(self, lock: Lock) -> list:
        """Entries whose bytes are neither proven in verified/ nor, by a check now, in their place."""
        rest = [entry for entry in lock.entries if not self._is_verified(entry)]
        placed = [entry for entry in rest if (size_and_time(self.folder.path, entry.path) or [None])[0] == entry.size]
        faults = find_faults(self.folder.path, placed, self.progress, self.stop)
        if self.stop.is_set():
            raise Stopped("stopped while the files that are there were checked")
        for path in faults:
            log.warning("%s %s; it is replaced when the right one has come", self.folder.path / path, faults[path])
        right = {entry.path for entry in placed} - set(faults)
        return [entry for entry in rest if entry.path not in right]

    def _is_verified(self, entry: Entry) -> bool:
        return (self.folder.verified / entry.sha256).exists()

    def _check_config(self, lock: Lock) -> None:
        (entry,) = (entry for entry in lock.entries if entry.path == CONFIG)
        file = self.folder.verified / entry.sha256
        file = file if file.exists() else self.folder.path / CONFIG
        check_architecture(lock.model, read_config(file))


def hub_of(settings: Settings, stop: threading.Event | None = None) -> Hub:
    """The hub that the settings name."""
    return Hub(settings.hub_endpoint, read_token(settings.hub_token_file), stop, settings.fetch_patience_s)


def choose(order: Order, old: Lock | None, wanted: Lock | None) -> Lock | None:
    """The lock to fetch by; None: ask the hub. Raises ConfigurationError where the folder holds another."""
    if wanted is not None and old is not None and old.digest == wanted.digest:
        return old
    if old is None or order.update:
        return wanted
    if wanted is not None:
        raise ConfigurationError(
            f"{order.folder} holds other bytes ({old.digest[:12]}) than {order.settings.weights_lock} asks for "
            f"({wanted.digest[:12]}); give --update to replace them, or another folder in --to"
        )
    if (old.model.lower(), old.revision) != (order.model.lower(), order.settings.hub_revision):
        raise ConfigurationError(
            f"{order.folder} holds {old.model} at {old.revision}, and {order.model} at {order.settings.hub_revision} "
            "was asked for; give --update to replace it, or another folder in --to"
        )
    return old
