"""API keys: made once, kept in a file only its owner reads, compared in constant time."""

import hmac
import os
import secrets
from pathlib import Path

from lingbi.errors import ConfigurationError

KEY_BYTES = 32


def ensure_keys(file: Path) -> list:
    """The keys of a file, one a line; a missing file is made (mode 0600) with one new key."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # another worker was quicker
            return ensure_keys(file)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"lb-{secrets.token_urlsafe(KEY_BYTES)}\n")
    keys = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if not keys:
        raise ConfigurationError(f"key file {file} is empty; put one key a line in it, or remove it to have one made")
    return keys


def is_known(presented: str, keys: list) -> bool:
    """Whether a presented key is one of the keys; takes the same time wherever they differ."""
    candidate = presented.encode("utf-8", "surrogateescape")
    return any([hmac.compare_digest(candidate, key.encode()) for key in keys])
