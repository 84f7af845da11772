"""Where this machine itself reaches what listens on an address."""

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # of those that mean every address


def url_host(listening: str) -> str:
    """The host of a URL for a server that listens on an address: an IPv6 address is in brackets there."""
    bare = listening.strip("[]")
    host = LOOPBACK.get(bare, bare)
    return f"[{host}]" if ":" in host else host
