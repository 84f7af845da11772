"""The ways in to /admin and to /batches: a key is shown once, and from then on a cookie names the session."""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lingbi_ui.accounts.client import Away, Client, Refused, bearer
from lingbi_ui.accounts.forms import Fields, Unfit, fields_of
from lingbi_ui.accounts.sessions import LASTS_S, Session, Sessions
from lingbi_ui.accounts.site import Site, go_on, language, root_of
from lingbi_ui.accounts.words import say
from lingbi_ui.guard.rates import Rates
from lingbi_ui.guard.visitors import visitor_in

KEY = re.compile(r"[\x21-\x7e]{1,200}")  # what fits a header
FORM = re.compile(r"[\w-]{43}", re.ASCII)
ATTEMPTS_PER_S = 0.5  # of a visitor; five at once
MAX_CHECKS = 8  # keys that are checked at once
FOR_ADMINISTRATORS = "/v1/admin/keys"
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Area:
    """Pages behind one login. root: their path, which their cookies are for; probe: a path of the API that refuses whoever
    may not come in; title, label: words of the login."""

    root: str
    cookie: str
    probe: str
    title: str
    label: str

    @property
    def form_cookie(self) -> str:
        return f"{self.cookie}-login"


ADMIN = Area("/admin", "lingbi-admin", FOR_ADMINISTRATORS, "login_title", "login_key")
BATCHES = Area("/batches", "lingbi-batches", "/v1/batches", "batches_login", "batches_key")
AREAS = (ADMIN, BATCHES)
COOKIE, FORM_COOKIE = ADMIN.cookie, ADMIN.form_cookie


@dataclass(frozen=True)
class Asked:
    """A request of somebody who is logged in; fields: of its form."""

    request: Request
    session: Session
    fields: Fields


Page = Callable[[Asked], Awaitable[Response]]


class Checks:
    """The keys that are being checked, for all areas together, and how often a visitor may have one checked."""

    def __init__(self, rates: Rates) -> None:
        self.rates, self.running = rates, 0

    def admits(self, request: Request) -> bool:
        """Whether this visitor may have a key checked now."""
        return self.rates.take(visitor_in(request.scope), ATTEMPTS_PER_S) and self.running < MAX_CHECKS


class Entry:
    """Logs people in and out of an area, and lets nobody else pass. An administrator who is in one is in the other too."""

    has_logins = False  # whether one may come in by a login of the page too

    def __init__(self, area: Area, site: Site, client: Client, sessions: Sessions, checks: Checks):
        self.area, self.site, self.client, self.sessions, self.checks = area, site, client, sessions, checks

    async def home(self, request: Request) -> Response:
        """GET /admin/, as people type it."""
        return go_on(request, self.area.root)

    async def form(self, request: Request) -> Response:
        """GET /admin/login"""
        if self._with_key(request) is not None:
            return go_on(request, self.area.root)
        return self._form(request, 200, "ended" if request.query_params.get("ended") else None)

    async def log_in(self, request: Request) -> Response:
        """POST /admin/login: checks the key with the API, and begins a session."""
        if not self.checks.admits(request):
            return self._form(request, 429, "busy")
        fields = _fields(await request.body())
        if not is_same(fields.get("form", ""), request.cookies.get(self.area.form_cookie, "")):
            return self._form(request, 403, "form_old")
        key = fields.get("key", "")
        self.checks.running += 1
        try:
            fault = await self._fault_of(key, self.area.probe)
            is_admin = not fault and (self.area == ADMIN or await self._fault_of(key, FOR_ADMINISTRATORS) is None)
        finally:
            self.checks.running -= 1
        if fault:
            return self._form(request, *fault)
        self.sessions.end(request.cookies.get(self.area.cookie, ""))
        answer, token = go_on(request, self.area.root), self.sessions.begin(key, is_admin)
        for area in AREAS:
            if is_admin or area == self.area:
                _set_cookie(request, answer, area, area.cookie, token, LASTS_S)
        return answer

    async def log_out(self, asked: Asked) -> Response:
        """POST /admin/logout"""
        self.sessions.end(asked.request.cookies.get(self.area.cookie, ""))
        answer = go_on(asked.request, f"{self.area.root}/login")
        for area in AREAS:
            _set_cookie(asked.request, answer, area, area.cookie, "", 0)
        return answer

    def page(self, page: Page) -> Handler:
        """The handler of a page that only those see who are logged in."""

        async def handler(request: Request) -> Response:
            session = self.session_of(request)
            if session is None:
                return self._away(request)
            return await self._work(page, Asked(request, session, {}))

        return handler

    def act(self, page: Page) -> Handler:
        """The handler of a form that only those send who are logged in, and only from a page of their session."""

        async def handler(request: Request) -> Response:
            session = self.session_of(request)
            if session is None:
                return self.refuse(request, 401, "not_in")
            fields = _fields(await request.body())
            if not is_same(fields.pop("form", ""), session.form):
                return self.refuse(request, 403, "form_old")
            return await self._work(page, Asked(request, session, fields))

        return handler

    def session_of(self, request: Request) -> Session | None:
        """The session in which a request is sent, if it may see this area."""
        return self._with_key(request)

    def refuse(self, request: Request, status: int, word: str, /, **values: str) -> Response:
        """A sentence, and the way back into this area."""
        return self.site.tell(request, status, word, self.area.root, **values)

    def _with_key(self, request: Request) -> Session | None:
        session = self.sessions.find(request.cookies.get(self.area.cookie, ""))
        return session if session and (session.is_admin or self.area != ADMIN) else None

    async def _work(self, page: Page, asked: Asked) -> Response:
        """What the API refuses, or that it is away, becomes a sentence; a key that ended ends its sessions."""
        request = asked.request
        try:
            return await page(asked)
        except Away:
            return self.refuse(request, 503, "away")
        except Unfit as unfit:
            return self.refuse(request, 400, "unfit", why=f"{unfit.field}: {unfit.seen!r}")
        except Refused as refused:
            if refused.status not in (401, 403) or asked.session.visitor:
                return self.site.refused(request, refused, self.area.root, asked.session.visitor)
            self.sessions.end(request.cookies.get(self.area.cookie, ""))
            return self._away(request)

    def _away(self, request: Request) -> Response:
        """To the login; it says so if there was one before."""
        had = request.cookies.get(self.area.cookie)
        return go_on(request, f"{self.area.root}/login", **({"ended": 1} if had else {}))

    async def _fault_of(self, key: str, probe: str) -> tuple[int, str] | None:
        """(status, sentence) of a key that is refused there, or None."""
        if not KEY.fullmatch(key):
            return 401, "key_wrong"
        try:
            await self.client.get(bearer(key), probe, limit=1)
        except Away:
            return 503, "away"
        except Refused as refused:
            known = {401: (401, "key_wrong"), 403: (403, "key_plain"), 404: (404, "batches_none")}
            return known.get(refused.status, (503, "away"))
        return None

    def _form(self, request: Request, status: int, word: str | None) -> HTMLResponse:
        known = request.cookies.get(self.area.form_cookie, "")
        form = known if FORM.fullmatch(known) else secrets.token_urlsafe(32)
        sentence = say(language(request), word) if word else None
        values = {"sentence": sentence, "form": form, "area": self.area, "has_logins": self.has_logins}
        answer = self.site.show(request, "login.html", status, **values)
        _set_cookie(request, answer, self.area, self.area.form_cookie, form, LASTS_S)
        return answer


def _fields(body: bytes) -> Fields:
    try:
        return fields_of(body)
    except Unfit:
        return {}


def is_same(given: str, known: str) -> bool:
    """Whether a form brings what its session gave it."""
    return bool(known) and hmac.compare_digest(given.encode(), known.encode())


def _set_cookie(request: Request, answer: Response, area: Area, name: str, value: str, lasts_s: int) -> None:
    """Only for an area's pages, and never sent from another website; origin.py adds Secure under TLS."""
    path = f"{root_of(request)}{area.root}"
    answer.set_cookie(name, value, max_age=lasts_s, path=path, httponly=True, samesite="strict")
