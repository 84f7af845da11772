"""Keeps other websites from using a visitor's browser: their requests are refused, and cookies do not travel with them.

Gradio answers every Origin with itself and with credentials allowed, and its login cookie is SameSite=None. It sends
browsers on to whatever host a request named.
"""

import re
from collections.abc import Iterable, Mapping
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEFAULT_PORTS = {"http": 80, "https": 443}
OPEN = re.compile(r"/(live|health|page-health)/?")  # they tell nothing of a visitor
LINKED = ("/", "/usage", "/batches", "/batches/login", "/admin", "/admin/login")  # what another website may link to
FOREIGN_SITES = ("cross-site", "same-site")  # https://www.w3.org/TR/fetch-metadata/
Header = tuple[bytes, bytes]


class SameOrigin:
    """ASGI: a 403 for requests that another website's page sends, and cookies that stay on this one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        stranger = stranger_in(headers, scope["path"], scope.get("method", ""))
        if stranger is not None and not OPEN.fullmatch(scope["path"]):
            await _refusal(stranger)(scope, receive, send)
            return
        is_tls = headers.get("x-forwarded-proto", scope.get("scheme")) == "https"

        async def kept(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = with_kept_cookies(message.get("headers", ()), is_tls)
                message["headers"] = [
                    (name, relative(value) if name.lower() == b"location" else value) for name, value in given
                ]
            await send(message)

        await self.app(scope, receive, kept)


def stranger_in(headers: Mapping[str, str], path: str, method: str) -> str | None:
    """Who sent a request, as its headers name them, if it is another website; a link to the page itself is none."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and not is_own(origin, headers.get("host", "")):
        return origin
    if site not in FOREIGN_SITES:
        return None
    place = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    is_link = place == ("navigate", "document") and method in ("GET", "HEAD") and path in LINKED
    return None if is_link else site


def is_own(origin: str, host: str) -> bool:
    """Whether an Origin header names the address that the request was sent to, as its Host header tells it.

    The scheme does not count: what speaks TLS for the page may stand before it.
    """
    try:
        place = urlsplit(origin)
        own = urlsplit(f"{place.scheme}://{host}")
        default = DEFAULT_PORTS[place.scheme]
        return bool(place.hostname) and (place.hostname, place.port or default) == (own.hostname, own.port or default)
    except (KeyError, ValueError):  # "null", another scheme, or a port that is none
        return False


def with_kept_cookies(headers: Iterable[Header], is_tls: bool) -> Iterable[Header]:
    """The headers, with every cookie out of reach of other sites and of scripts and, under TLS, of plain HTTP."""
    for name, value in headers:
        yield (name, _kept(value, is_tls)) if name.lower() == b"set-cookie" else (name, value)


def relative(location: bytes) -> bytes:
    """Where a browser is sent on to, on this server whatever the request called it."""
    place = urlsplit(location.decode("latin-1"))
    path = "/" + place.path.lstrip("/\\")
    return (f"{path}?{place.query}" if place.query else path).encode("latin-1")


def _kept(value: bytes, is_tls: bool) -> bytes:
    cookie: SimpleCookie = SimpleCookie(value.decode("latin-1"))
    for morsel in cookie.values():
        is_strict = str(morsel["samesite"]).lower() == "strict"
        morsel["httponly"], morsel["secure"], morsel["samesite"] = True, is_tls, "Strict" if is_strict else "Lax"
    return cookie.output(header="", sep="").strip().encode("latin-1")


def _refusal(origin: str) -> JSONResponse:
    detail = f"this page answers no other website, and {origin[:100]!r} is one; open the page itself"
    return JSONResponse({"detail": detail}, 403)
