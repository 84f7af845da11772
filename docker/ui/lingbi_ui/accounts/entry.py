"""The way in to /admin: an administrator's key is shown once, and from then on a cookie names the session."""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lingbi_ui.accounts.client import Away, Client, Refused
from lingbi_ui.accounts.forms import Fields, Unfit, fields_of
from lingbi_ui.accounts.sessions import LASTS_S, Session, Sessions
from lingbi_ui.accounts.site import Site, go_on, language, root_of
from lingbi_ui.accounts.words import say
from lingbi_ui.guard.rates import Rates
from lingbi_ui.guard.visitors import VISITOR, Visitor, visitor_of

COOKIE, FORM_COOKIE = "lingbi-admin", "lingbi-admin-login"
KEY = re.compile(r"[\x21-\x7e]{1,200}")  # what fits a header
FORM = re.compile(r"[\w-]{43}", re.ASCII)
ATTEMPTS_PER_S = 0.5  # of a visitor; five at once
MAX_CHECKS = 8  # keys that are checked at once
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Asked:
    """A request of an administrator who is logged in; fields: of its form."""

    request: Request
    session: Session
    fields: Fields


Page = Callable[[Asked], Awaitable[Response]]


class Entry:
    """Logs administrators in and out, and lets nobody else pass."""

    def __init__(self, site: Site, client: Client, sessions: Sessions, rates: Rates):
        self.site, self.client, self.sessions, self.rates = site, client, sessions, rates
        self.checking = 0

    async def home(self, request: Request) -> Response:
        """GET /admin/, as people type it."""
        return go_on(request, "/admin")

    async def form(self, request: Request) -> Response:
        """GET /admin/login"""
        if self.sessions.find(request.cookies.get(COOKIE, "")) is not None:
            return go_on(request, "/admin")
        return self._form(request, 200, "ended" if request.query_params.get("ended") else None)

    async def log_in(self, request: Request) -> Response:
        """POST /admin/login: checks the key with the API, and begins a session."""
        if not self.rates.take(_visitor(request), ATTEMPTS_PER_S) or self.checking >= MAX_CHECKS:
            return self._form(request, 429, "busy")
        fields = _fields(await request.body())
        if not _is_same(fields.get("form", ""), request.cookies.get(FORM_COOKIE, "")):
            return self._form(request, 403, "form_old")
        self.checking += 1
        try:
            fault = await self._fault_of(fields.get("key", ""))
        finally:
            self.checking -= 1
        if fault:
            return self._form(request, *fault)
        self.sessions.end(request.cookies.get(COOKIE, ""))
        answer = go_on(request, "/admin")
        _set_cookie(request, answer, COOKIE, self.sessions.begin(fields["key"]), LASTS_S)
        return answer

    async def log_out(self, asked: Asked) -> Response:
        """POST /admin/logout"""
        self.sessions.end(asked.request.cookies.get(COOKIE, ""))
        answer = go_on(asked.request, "/admin/login")
        _set_cookie(asked.request, answer, COOKIE, "", 0)
        return answer

    def page(self, page: Page) -> Handler:
        """The handler of a page that only administrators see."""

        async def handler(request: Request) -> Response:
            session = self.sessions.find(request.cookies.get(COOKIE, ""))
            if session is None:
                return self._away(request)
            return await self._work(page, Asked(request, session, {}))

        return handler

    def act(self, page: Page) -> Handler:
        """The handler of a form that only administrators send, and only from a page of their session."""

        async def handler(request: Request) -> Response:
            session = self.sessions.find(request.cookies.get(COOKIE, ""))
            if session is None:
                return self.site.tell(request, 401, "not_in", "/admin/login")
            fields = _fields(await request.body())
            if not _is_same(fields.pop("form", ""), session.form):
                return self.site.tell(request, 403, "form_old", "/admin")
            return await self._work(page, Asked(request, session, fields))

        return handler

    async def _work(self, page: Page, asked: Asked) -> Response:
        """What the API refuses, or that it is away, becomes a sentence; a key that ended ends its sessions."""
        request = asked.request
        try:
            return await page(asked)
        except Away:
            return self.site.tell(request, 503, "away", "/admin")
        except Unfit as unfit:
            return self.site.tell(request, 400, "unfit", "/admin/keys", why=f"{unfit.field}: {unfit.seen!r}")
        except Refused as refused:
            if refused.status not in (401, 403):
                return self.site.tell(request, refused.status, "refused", "/admin", why=refused.why)
            self.sessions.end(request.cookies.get(COOKIE, ""))
            return self._away(request)

    def _away(self, request: Request) -> Response:
        """To the login; it says so if there was one before."""
        return go_on(request, "/admin/login", **({"ended": 1} if request.cookies.get(COOKIE) else {}))

    async def _fault_of(self, key: str) -> tuple[int, str] | None:
        """(status, sentence) of a key that lets nobody in, or None."""
        if not KEY.fullmatch(key):
            return 401, "key_wrong"
        try:
            await self.client.get(key, "/v1/admin/keys", limit=1)
        except Away:
            return 503, "away"
        except Refused as refused:
            return {401: (401, "key_wrong"), 403: (403, "key_plain")}.get(refused.status, (503, "away"))
        return None

    def _form(self, request: Request, status: int, word: str | None) -> HTMLResponse:
        known = request.cookies.get(FORM_COOKIE, "")
        form = known if FORM.fullmatch(known) else secrets.token_urlsafe(32)
        sentence = say(language(request), word) if word else None
        answer = self.site.show(request, "login.html", status, sentence=sentence, form=form)
        _set_cookie(request, answer, FORM_COOKIE, form, LASTS_S)
        return answer


def _visitor(request: Request) -> Visitor:
    found: Visitor = request.scope.get(VISITOR) or visitor_of(request.scope, None)
    return found


def _fields(body: bytes) -> Fields:
    """The form's fields; of what is no form none, which then lacks what proves that it is the page's own."""
    try:
        return fields_of(body)
    except Unfit:
        return {}


def _is_same(given: str, known: str) -> bool:
    return bool(known) and hmac.compare_digest(given.encode(), known.encode())


def _set_cookie(request: Request, answer: Response, name: str, value: str, lasts_s: int) -> None:
    """Only for these pages, and never sent from another website; origin.py adds Secure under TLS."""
    answer.set_cookie(name, value, max_age=lasts_s, path=f"{root_of(request)}/admin", httponly=True, samesite="strict")
