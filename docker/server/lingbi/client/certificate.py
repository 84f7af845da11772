"""Verifies a gateway's certificate under a name that it holds: https://127.0.0.1 is in no lab's certificate."""

import asyncio
import socket
import ssl

import httpx

from lingbi.errors import ConfigurationError

CONNECT_S = 10


class HeldName:
    """A hook of httpx's requests: each one verifies the certificate under a name that this certificate holds itself.

    The chain is verified as ever, against the given CA file or certifi's; only the name is not that of the URL.
    """

    def __init__(self, ca_file: str | None):
        self.ca_file, self.name = ca_file, ""

    def __call__(self, request: httpx.Request) -> None:
        if request.url.scheme != "https":
            return
        try:
            self.name = self.name or name_of(request.url.host, request.url.port or 443, self.ca_file)
        except OSError as error:
            raise httpx.ConnectError(reason(error, self.ca_file), request=request) from None
        request.extensions["sni_hostname"] = self.name  # httpcore verifies this in place of the URL's host


def verify_by_held_name(client: httpx.Client | httpx.AsyncClient, ca_file: str | None) -> None:
    """Have a client verify each server's certificate under a name that this certificate holds."""
    held = HeldName(ca_file)
    if isinstance(client, httpx.Client):
        client.event_hooks["request"].append(held)
        return

    async def hold(request: httpx.Request) -> None:
        await asyncio.to_thread(held, request)

    client.event_hooks["request"].append(hold)


def name_of(host: str, port: int, ca_file: str | None) -> str:
    """A name in the verified certificate of a server. Raises OSError, and ConfigurationError where it holds none."""
    context = httpx.create_ssl_context(verify=ca_file or True, trust_env=False)
    context.check_hostname = False
    with socket.create_connection((host, port), CONNECT_S) as plain, context.wrap_socket(plain) as secure:
        told = secure.getpeercert() or {}
    held = [str(entry[1]) for entry in told.get("subjectAltName", ())]
    if not held:
        raise ConfigurationError(f"the certificate at {host}:{port} holds no name (subjectAltName); make one that does")
    return chosen(held)


def chosen(held: list[str]) -> str:
    """A name that a certificate for these verifies: one that is written out if there is one."""
    plain = [name for name in held if not name.startswith("*.")]
    return plain[0] if plain else f"lingbi{held[0][1:]}"


def reason(error: OSError, ca_file: str | None) -> str:
    """What was wrong, with the remedy for a certificate that nobody here trusts."""
    is_unknown = isinstance(error, ssl.SSLCertVerificationError) and not ca_file
    return f"{error}; give the certificate of its authority with --ca-file" if is_unknown else str(error)
