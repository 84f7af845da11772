"""Fetches images by URL, and keeps requests away from addresses that only this machine can reach.

Each name is resolved once, the address is checked, and the connection goes to that address, so that DNS rebinding gains
nothing. Every redirect is checked in the same way. The limits of time and bytes hold for all hops together. Proxies from
the environment are not used, because they would resolve names again.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import httpcore
import httpx

from lingbi.api_errors import ImageError
from lingbi.images.addresses import Network, is_allowed
from lingbi.images.content_coding import decoded, is_coded
from lingbi.images.limits import too_large

MAX_HOPS = 5
# Of a host with several addresses, how long each is tried before the next: one that drops packets never refuses.
ATTEMPT_S = 2.0
MAX_URL_CHARACTERS = 65_536
SCHEMES = ("http", "https")
PORTS = range(1, 1 << 16)
REDIRECTS = (301, 302, 303, 307, 308)
SUCCESSES = (200, 203)  # 203: a proxy on the way has changed something
# DNS look-ups have their own threads: they cannot be cancelled, and a slow one must delay nothing but other look-ups.
NAMES = ThreadPoolExecutor(16, "names")
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "lingbi"}


@dataclass(frozen=True)
class FetchRules:
    """What may be fetched.

    is_on: whether anything is; hosts: names allowed, all when empty; networks: networks allowed though
    not public; timeout_s: over all hops; max_bytes: of the picture.
    """

    is_on: bool = True
    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    timeout_s: float = 10
    max_bytes: int = 20 << 20


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only; timeout_s: for all addresses of a host together."""

    def __init__(self, networks: tuple[Network, ...], timeout_s: float):
        self._networks, self._timeout_s, self._inner = networks, timeout_s, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the name up, refuse unless every address is allowed, connect to the first that answers."""
        loop = asyncio.get_running_loop()
        look_up = partial(socket.getaddrinfo, host.strip("[]"), port, type=socket.SOCK_STREAM)
        try:
            found = await loop.run_in_executor(NAMES, look_up)
        except (OSError, UnicodeError):
            raise ImageError(f"the picture's host {host[:100]!r} has no address", reason="url") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        refused = [address for address in addresses if not is_allowed(address, self._networks)]
        if refused:
            raise ImageError(
                f"the picture's host {host[:100]!r} is not on the public internet; send the picture as a data: URL",
                reason="address",
            )
        return await self._connect_any(addresses, port, timeout, local_address, socket_options)

    async def _connect_any(
        self, addresses: list[str], port: int, timeout_s: float | None, *options: Any
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that answers; each gets its share of the time, the last one the rest."""
        share_s = min(ATTEMPT_S, self._timeout_s / len(addresses))
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, share_s, *options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout_s, *options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise ImageError("a picture's URL must name a host", reason="url")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def fetch(url: str, rules: FetchRules) -> bytes:
    """The bytes behind an http(s) URL. Raises ImageError with a sentence for the client."""
    if not rules.is_on:
        raise ImageError("this server fetches no pictures; send the picture as a data: URL", reason="url")
    try:
        return await asyncio.wait_for(_follow(url, rules), rules.timeout_s)
    except asyncio.TimeoutError:
        raise ImageError(f"the picture did not come within {rules.timeout_s} s", reason="fetch") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise ImageError(f"the picture cannot be fetched: {type(error).__name__}", reason="fetch") from None


async def _follow(url: str, rules: FetchRules) -> bytes:
    network = CheckedNetwork(rules.networks, rules.timeout_s)
    async with httpcore.AsyncConnectionPool(ssl_context=_tls(), network_backend=network) as pool:
        target = None
        for _ in range(MAX_HOPS + 1):
            target = _checked_url(url, target, rules)
            async with pool.stream("GET", _for_httpcore(target), headers=_headers(target)) as response:
                if response.status not in REDIRECTS:
                    return await _read(response, rules)
                url = _location(response)
    raise ImageError(f"the picture's URL redirects more than {MAX_HOPS} times", reason="url")


def _location(response: httpcore.Response) -> str:
    """Where a redirect leads. Many hosts write their paths in UTF-8 as they are, which browsers and curl follow."""
    place = _header(response, b"location")
    if not place:
        raise ImageError(
            f"the picture's host redirects (status {response.status}) without a Location that says where to",
            reason="url",
        )
    try:
        return place.decode("utf-8")
    except UnicodeDecodeError:
        return re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % byte[0][0], place).decode("ascii")


def _checked_url(url: str, base: httpx.URL | None, rules: FetchRules) -> httpx.URL:
    if len(url) > MAX_URL_CHARACTERS:
        raise ImageError(
            f"a picture's URL may have {MAX_URL_CHARACTERS} characters, and this one has {len(url)}", reason="url"
        )
    try:
        target = base.join(url) if base else httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ImageError(f"{url[:50]!r} is no usable URL", reason="url") from None
    if target.scheme not in SCHEMES or not target.host or (target.port or 1) not in PORTS:
        raise ImageError(f"a picture's URL must be http(s) and name a host, not {url[:50]!r}", reason="url")
    if target.userinfo:
        raise ImageError("a picture's URL must hold no user name", reason="url")
    if rules.hosts and target.host.lower().rstrip(".") not in rules.hosts:
        raise ImageError(f"this server fetches no pictures from {target.host[:100]!r}", reason="host")
    return target


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _for_httpcore(target: httpx.URL) -> httpcore.URL:
    # Passed in parts: two parsers that read the same text differently would be a security hole.
    return httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)


def _headers(target: httpx.URL) -> list[tuple[bytes | str, bytes | str]]:
    return [("Host", target.netloc), *HEADERS.items()]


def _header(response: httpcore.Response, name: bytes) -> bytes:
    return next((value for key, value in response.headers if key.lower() == name), b"")


async def _read(response: httpcore.Response, rules: FetchRules) -> bytes:
    if response.status not in SUCCESSES:
        raise ImageError(f"the picture's host answered with status {response.status}", reason="fetch")
    data = await _body(response, rules)
    coding = _header(response, b"content-encoding").decode("latin-1")
    # In a thread: a few bytes may stand for many megabytes.
    return await asyncio.to_thread(decoded, data, coding, rules.max_bytes) if is_coded(coding) else data


async def _body(response: httpcore.Response, rules: FetchRules) -> bytes:
    size = _header(response, b"content-length")
    if size.isdigit() and int(size[:18]) > rules.max_bytes:
        raise too_large(int(size[:18]), rules.max_bytes)
    data = bytearray()
    async for chunk in response.aiter_stream():
        data += chunk
        if len(data) > rules.max_bytes:
            raise too_large(len(data), rules.max_bytes)
    return bytes(data)
