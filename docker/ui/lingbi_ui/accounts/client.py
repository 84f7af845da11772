"""The API as the pages of accounts use it, for the key of a session or for a visitor's login."""

import json
import logging
from typing import Any

import httpx

from lingbi_ui.accounts.sessions import Session
from lingbi_ui.api import visitor_headers
from lingbi_ui.settings import ConfigurationError, Settings

TIMEOUT = httpx.Timeout(15, connect=5)
AWAY = (502, 503, 504)  # statuses, by which the gateway, or a server whose database is away, says that it will be back
Found = dict[str, Any]
Headers = dict[str, str]
log = logging.getLogger("uvicorn.error")


class Away(Exception):
    """The API does not answer, or answers with what is no JSON of its own."""


class Refused(Exception):
    """The API's refusal: its HTTP status, its own sentence, in English, and its code, if any."""

    def __init__(self, status: int, why: str, code: str | None = None):
        super().__init__(why)
        self.status, self.why, self.code = status, why, code


class Client:
    """One for all sessions; for whom it asks is said at each call, by the headers that name them."""

    def __init__(self, settings: Settings):
        self.settings = settings
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=4)
        self.http = httpx.AsyncClient(base_url=settings.api_url, timeout=TIMEOUT, limits=limits, trust_env=False)

    def headers_of(self, session: Session) -> Headers:
        """For whoever has this session. Raises Away."""
        return self.headers_of_visitor(session.visitor) if session.visitor else bearer(session.key)

    def headers_of_visitor(self, login: str) -> Headers:
        """For a login of the page, who is asked for with the page's key. Raises Away."""
        try:
            return bearer(self.settings.api_key()) | visitor_headers(login)
        except ConfigurationError as error:
            log.error("%s", error)
            raise Away from None

    async def get(self, headers: Headers, path: str, **parameters: str | int | None) -> Found:
        """A GET of the API. Raises Refused and Away."""
        asked = {name: value for name, value in parameters.items() if value is not None}
        return read(await self._send("GET", path, headers, params=asked))

    async def send(self, headers: Headers, method: str, path: str, body: Found | None) -> Found:
        """A change. Raises Refused and Away."""
        return read(await self._send(method, path, headers, **({} if body is None else {"json": body})))

    async def _send(self, method: str, path: str, headers: Headers, **more: Any) -> httpx.Response:
        try:
            return await self.http.request(method, path, headers=headers, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.info("the accounts' API cannot be asked: %s", type(error).__name__)
            raise Away from None


def bearer(key: str) -> Headers:
    """The header that names a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def read(response: httpx.Response) -> Found:
    """The JSON of an answer. Raises Refused for what the API refuses, and Away for all that is not the API's own."""
    try:
        body = json.loads(response.content or b"{}")
        if response.status_code < 400 and isinstance(body, dict):
            return body
        why, code = str(body["error"]["message"]), body["error"].get("code")
    except (ValueError, LookupError, TypeError, AttributeError):
        why, code = "", None
    if not why or response.status_code >= 500:
        log.info("the accounts' API answers %d: %s", response.status_code, why[:500])
    if not why or response.status_code in AWAY:
        raise Away from None
    raise Refused(response.status_code, why, code)
