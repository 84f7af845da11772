"""Whether a fetch fits the disk, before a byte is fetched."""

import shutil

from lingbi.errors import ConfigurationError
from lingbi.weights.entries import Entry
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.partial import BLOCK_BYTES, JOURNAL_SUFFIX

MARGIN_BYTES = 64 << 20  # journals, lock, folders


def check_space(folder: WeightsFolder, entries: list) -> None:
    """Raise ConfigurationError with both numbers where the entries still to come do not fit."""
    arrived = sum(arrived_bytes(folder, entry) for entry in entries)
    needed = max(sum(entry.size for entry in entries) - arrived, 0) + MARGIN_BYTES
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        raise ConfigurationError(
            f"{folder.path} needs {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free there; "
            "free some (scripts/weights list shows what the models take), or give another folder"
        )


def arrived_bytes(folder: WeightsFolder, entry: Entry) -> int:
    """Bytes of an entry that an earlier fetch has left on the disk."""
    partial = folder.partial / entry.sha256
    journal = partial.with_name(partial.name + JOURNAL_SUFFIX)
    if not partial.exists() or not journal.exists():
        return 0
    return min(journal.read_bytes().count(1) * BLOCK_BYTES, entry.size)
