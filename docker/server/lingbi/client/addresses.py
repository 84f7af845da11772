"""The address at which a server is reached, from this machine or by a URL that somebody gives, and the key that goes with it."""

from pathlib import Path

from lingbi.errors import ConfigurationError

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # for the addresses that mean every interface


def url_host(listening: str) -> str:
    """The host part of the URL of a server that listens on this address; an IPv6 address is put in brackets."""
    bare = listening.strip("[]")
    host = LOOPBACK.get(bare, bare)
    return f"[{host}]" if ":" in host else host


def base_url(url: str) -> str:
    """A base URL without a trailing slash or /v1."""
    return url.rstrip("/").removesuffix("/v1")


def key_in(file: Path) -> str:
    """The API key in a file's first line. Raises ConfigurationError."""
    try:
        return file.read_text().split()[0]
    except (OSError, IndexError):
        raise ConfigurationError(f"no API key in {file}; give --api-key-file") from None


def record_file(state_dir: Path) -> Path:
    """The record of a running server for scripts/smoke and scripts/down: JSON with its URL, key file and model."""
    return state_dir / "run" / "server.json"
