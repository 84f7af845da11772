"""The address at which this machine itself reaches a published port."""

from __future__ import annotations

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # for the addresses that mean every interface


def reached_at(published: str) -> str:
    """The address to connect to, without brackets."""
    bare = published.strip("[]")
    return LOOPBACK.get(bare, bare)


def url_host(published: str) -> str:
    """The same as the host part of a URL, with an IPv6 address in brackets."""
    host = reached_at(published)
    return f"[{host}]" if ":" in host else host
