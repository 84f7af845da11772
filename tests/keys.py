"""Keys in a host's key file, as versions before the accounts' database wrote them."""

import secrets
from pathlib import Path

from lingbi.accounts.key_file import Key, digest, read_key_file, save_keys


def add_to_file(file: Path, name: str, limit: int | None = None) -> str:
    """Make a key and put its line into the file; returns the key."""
    key = f"lb-{secrets.token_urlsafe(32)}"
    known = read_key_file(file, may_be_empty=True) if file.exists() else []
    save_keys(file, [*known, Key(name, digest(key.encode()), limit)])
    return key
