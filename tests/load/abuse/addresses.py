"""Where the clients of a run come from: from one address each where that can be, as limits hold for an address.

OWN: all of 127.0.0.0/8 are addresses of this machine, and a stack beside sees from which of them a connection comes. TOLD: the
stack trusts this machine as its proxy (LINGBI_GATEWAY_TRUSTED_PROXIES) and is told the addresses. SHARED: all count as one.
"""

OWN, TOLD, SHARED = "own", "told", "shared"
ATTACKER = 200  # the number of the attackers' address; the honest ones begin at 1
TOLD_BY = "X-Forwarded-For"


def source_of(addresses: str, number: int) -> str | None:
    """The address that a client binds its connections to."""
    return f"127.0.1.{number}" if addresses == OWN else None


def headers_of(addresses: str, number: int) -> dict[str, str]:
    """What tells a client's address; from the networks for documentation (RFC 5737)."""
    return {TOLD_BY: f"198.51.100.{number}"} if addresses == TOLD else {}
