"""What lets pages of other web origins call the API from a browser (CORS, in the Fetch standard)."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from lingbi.accounts.facts import MEASURES

RATES = tuple(f"x-ratelimit-{what}-{measure}" for measure in MEASURES for what in ("limit", "remaining", "reset"))
EXPOSED = ("X-Request-ID", "Retry-After", *RATES)
MAX_AGE_S = 600


def cross_origin(app: ASGIApp, allowed_origins: str) -> ASGIApp:
    """The application, open to these origins (with commas; *: all); itself where there are none.

    It answers preflights before the application asks for a key, since browsers send none with them. Keys come in a
    header, never as cookies, so no credentials are allowed.
    """
    if not allowed_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=allowed_origins.split(","),
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=EXPOSED,
        max_age=MAX_AGE_S,
    )
