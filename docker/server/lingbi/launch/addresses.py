"""The address at which this machine itself reaches a server."""

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # for the addresses that mean every interface


def url_host(listening: str) -> str:
    """The host part of the URL of a server that listens on this address; an IPv6 address is put in brackets."""
    bare = listening.strip("[]")
    host = LOOPBACK.get(bare, bare)
    return f"[{host}]" if ":" in host else host
