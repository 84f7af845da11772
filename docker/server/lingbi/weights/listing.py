"""Turns a hub's listing into lock entries, and trusts nothing in it."""

from lingbi.errors import ConfigurationError
from lingbi.weights.entries import Entry, check_entries

MAX_SHOWN = 3


def entries_of(files: list, where: str) -> tuple:
    """Lock entries of a listing [{"Path", "Size", "Sha256", "Type"}].

    Raises ConfigurationError for an empty listing and for entries that cannot be proven or placed.
    """
    blobs = [item for item in files if item.get("Type", "blob") != "tree"]
    if not blobs:
        raise ConfigurationError(f"{where} lists no files: there is no such revision, or nothing in it; check its name")
    unproven = [str(item.get("Path")) for item in blobs if not item.get("Sha256")]
    if unproven:
        raise ConfigurationError(
            f"{where} lists {len(unproven)} files without SHA-256 ({', '.join(unproven[:MAX_SHOWN])}), so their bytes "
            "cannot be proven; use a mirror that gives hashes, or fetch with a lock file"
        )
    entries = tuple(Entry(str(item.get("Path")), item.get("Size"), str(item["Sha256"]).lower()) for item in blobs)
    check_entries(entries, where)
    return entries
