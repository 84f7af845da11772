"""Where this machine itself reaches what is published on an address."""

from __future__ import annotations

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # of those that mean every address


def reached_at(published: str) -> str:
    """The address to connect to, without brackets."""
    bare = published.strip("[]")
    return LOOPBACK.get(bare, bare)


def url_host(published: str) -> str:
    """The same as the host of a URL, where an IPv6 address is in brackets."""
    host = reached_at(published)
    return f"[{host}]" if ":" in host else host
