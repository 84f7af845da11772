"""The routes that the page itself uses, each with its methods, its largest body and whether it needs a login."""

import re
from dataclasses import dataclass
from enum import Enum, auto

KIB, MIB = 1 << 10, 1 << 20
MAX_QUESTION_BYTES = MIB  # sixteen pictures are 16 KiB of names, and the text of a whole session at most 200 KiB

MAX_FORM_BYTES = 16 * KIB


class Work(Enum):
    """What a request sets in motion."""

    NOTHING = auto()
    LOGIN = auto()
    QUESTION = auto()  # joins Gradio's queue
    BUTTON = auto()  # runs a function that takes nothing, without the queue
    CANCEL = auto()
    FORM = auto()  # of the pages of accounts, which have logins of their own
    BATCH = auto()  # a batch's file, which goes on to the API as it comes
    RESET = auto()  # follows a cancellation, and means nothing
    UPLOAD = auto()
    ANSWERS = auto()  # streams a session's messages
    PROGRESS = auto()  # streams how much of an upload has come


@dataclass(frozen=True)
class Route:
    """path: of the whole request; max_bytes: of its body."""

    path: re.Pattern[str]
    methods: tuple[str, ...] = ("GET", "HEAD")
    work: Work = Work.NOTHING
    max_bytes: int = 0
    needs_login: bool = True


def _get(path: str, work: Work = Work.NOTHING, needs_login: bool = True) -> Route:
    return Route(re.compile(path + "/?"), work=work, needs_login=needs_login)


def _post(path: str, work: Work, max_bytes: int, needs_login: bool = True) -> Route:
    return Route(re.compile(path + "/?"), ("POST",), work, max_bytes, needs_login)


def _form(path: str, methods: tuple[str, ...]) -> Route:
    return Route(re.compile(path), methods, Work.FORM, MAX_FORM_BYTES, needs_login=False)


ROUTES = (
    _get("/|/(live|health|page-health|logout|theme.css|favicon.ico)|/(static|assets|svelte)/.*", needs_login=False),
    _get("/state|/config|/gradio_api/app_id"),
    _get("/gradio_api/file=/.*"),
    _get("/gradio_api/queue/data", Work.ANSWERS),
    _get("/gradio_api/upload_progress", Work.PROGRESS),
    _post("/login", Work.LOGIN, 4 * KIB, needs_login=False),
    _get("/usage|/admin/(key|group|look.css|usage.csv)|/admin", needs_login=False),
    _get("/batches/batch|/batches", needs_login=False),
    Route(re.compile("/batches/file"), ("GET",), needs_login=False),
    _form("/admin/(login|keys|groups)|/batches/login", ("GET", "HEAD", "POST")),
    _form("/batches/(logout|cancel)", ("POST",)),
    Route(re.compile("/batches/submit"), ("POST",), Work.BATCH, needs_login=False),  # the API counts its bytes
    _form("/admin/(logout|key/(change|limits|rotate|end)|group/(change|remove))", ("POST",)),
    _post("/gradio_api/queue/join", Work.QUESTION, MAX_QUESTION_BYTES),
    _post("/gradio_api/run/predict", Work.BUTTON, MAX_QUESTION_BYTES),
    _post("/gradio_api/cancel", Work.CANCEL, KIB),
    _post("/gradio_api/reset", Work.RESET, KIB),
    _post("/gradio_api/upload", Work.UPLOAD, 0),  # uploads.py counts
)


def route_of(path: str) -> Route | None:
    """The route of a path, whatever the method; None: this page has no such route."""
    return next((route for route in ROUTES if route.path.fullmatch(path)), None)
