"""What all pages of accounts share: their templates in the visitor's language, their headers and their addresses."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lingbi_ui import PREFIX_HEADER, words
from lingbi_ui.accounts import charts, figures
from lingbi_ui.accounts.client import Refused
from lingbi_ui.accounts.words import say
from lingbi_ui.words import language_of

FOLDER = Path(__file__).parent
LOOK = (FOLDER / "templates" / "look.css").read_text(encoding="utf-8")
OF_VISITORS = ("visitor_ended", "invalid_api_key")  # codes of the API that the chat has sentences for
PREFIX = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._~-]*)+")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with none, a browser would not say which page sends a form
    # No script at all; the gateway's own policy, which the chat needs, allows more, and a browser obeys both.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


def templates() -> Environment:
    """The templates; everything that they show is escaped, and a name that is missing is an error."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"figures": figures, "bars": charts.bars, "level": charts.level, "progress": charts.progress}
    return found


class Site:
    """Writes the answers of all pages."""

    def __init__(self) -> None:
        self.templates = templates()

    def show(self, request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """A page in the browser's language."""
        spoken = language(request)
        text = self.templates.get_template(template).render(
            values | {"language": spoken, "say": Speaker(spoken), "url": Addresses(root_of(request))}
        )
        retry = {"Retry-After": "30"} if status in (429, 503) else {}
        return HTMLResponse(text, status, HEADERS | retry)

    def tell(self, request: Request, status: int, word: str, back: str, /, **values: str) -> HTMLResponse:
        """A page that says one sentence, and where to go on."""
        return self.show(request, "told.html", status, sentence=say(language(request), word, **values), back=back)

    def refused(self, request: Request, refused: Refused, back: str, visitor: str) -> HTMLResponse:
        """A page that says why the API refuses. visitor: the login for which the page asks with its own key, or ""."""
        spoken = language(request)
        if visitor and refused.code in OF_VISITORS:
            sentence = words.say(spoken, f"error_{refused.code}")
        else:
            sentence = say(spoken, "refused", why=refused.why)
        return self.show(request, "told.html", refused.status, sentence=sentence, back=back)


class Speaker:
    """say('word', …) in a template."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, word: str, /, **values: object) -> str:
        return say(self.language, word, **values)


class Addresses:
    """url('/admin/keys', page=2) in a template: below the path at which this visitor finds the page."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __call__(self, path: str, /, **query: object) -> str:
        return f"{self.root}{path}" + (f"?{urlencode(query)}" if query else "")


def language(request: Request) -> str:
    return language_of(request.headers.get("accept-language", ""))


def root_of(request: Request) -> str:
    """The path below which a trusted proxy serves the page, or nothing."""
    told: str = request.headers.get(PREFIX_HEADER, "").rstrip("/")
    return told if PREFIX.fullmatch(told) else ""


def go_on(request: Request, path: str, /, **query: object) -> Response:
    """Sends the browser on with a GET."""
    return RedirectResponse(Addresses(root_of(request))(path, **query), 303, HEADERS)


async def look(request: Request) -> Response:
    """The style sheet."""
    return Response(LOOK, media_type="text/css", headers={"Cache-Control": "max-age=300", "Vary": "Accept-Encoding"})
