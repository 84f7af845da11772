"""The addresses of the pages of accounts."""

from starlette.routing import Route

from lingbi_ui.accounts import site
from lingbi_ui.accounts.batches.entry import BatchEntry
from lingbi_ui.accounts.batches.pages import Batches
from lingbi_ui.accounts.batches.submission import Submission
from lingbi_ui.accounts.batches.transfers import Transfers
from lingbi_ui.accounts.client import Client
from lingbi_ui.accounts.desk import Desk
from lingbi_ui.accounts.entry import ADMIN, Checks, Entry
from lingbi_ui.accounts.groups import Groups
from lingbi_ui.accounts.keys import Keys
from lingbi_ui.accounts.overview import Overview
from lingbi_ui.accounts.own_use import OwnUse
from lingbi_ui.accounts.sessions import Sessions
from lingbi_ui.guard.rates import Rates
from lingbi_ui.guard.sessions import Sessions as Logins
from lingbi_ui.settings import Settings


def routes(settings: Settings, logins: Logins | None, sessions: Sessions | None = None) -> list[Route]:
    """All of them. logins: the page's own; guard/routes.py has to know each."""
    pages, client = site.Site(), Client(settings)
    known, checks, desk = Sessions() if sessions is None else sessions, Checks(Rates()), Desk(pages, client)
    entry = Entry(ADMIN, pages, client, known, checks)
    overview, keys, groups = Overview(desk), Keys(desk), Groups(desk)
    shown = {
        "/admin": overview.page,
        "/admin/usage.csv": overview.report,
        "/admin/keys": keys.table,
        "/admin/key": keys.one,
        "/admin/groups": groups.table,
        "/admin/group": groups.one,
    }
    sent = {
        "/admin/logout": entry.log_out,
        "/admin/keys": keys.add,
        "/admin/key/change": keys.change,
        "/admin/key/limits": keys.limit,
        "/admin/key/rotate": keys.rotate,
        "/admin/key/end": keys.end,
        "/admin/groups": groups.add,
        "/admin/group/change": groups.change,
        "/admin/group/remove": groups.remove,
    }
    return [
        Route("/usage", OwnUse(pages, client, logins).page),
        Route("/admin/look.css", site.look),
        Route("/admin/", entry.home),
        Route("/admin/login", entry.form),
        Route("/admin/login", entry.log_in, methods=["POST"]),
        *(Route(path, entry.page(page)) for path, page in shown.items()),
        *(Route(path, entry.act(page), methods=["POST"]) for path, page in sent.items()),
        *_of_batches(settings, desk, BatchEntry(pages, client, known, checks, logins)),
    ]


def _of_batches(settings: Settings, desk: Desk, entry: BatchEntry) -> list[Route]:
    transfers = Transfers(settings)
    batches = Batches(desk, transfers)
    return [
        Route("/batches/", entry.home),
        Route("/batches/login", entry.form),
        Route("/batches/login", entry.log_in, methods=["POST"]),
        Route("/batches/logout", entry.act(entry.log_out), methods=["POST"]),
        Route("/batches", entry.page(batches.table)),
        Route("/batches/batch", entry.page(batches.one)),
        Route("/batches/file", entry.page(batches.file)),
        Route("/batches/cancel", entry.act(batches.cancel), methods=["POST"]),
        Route("/batches/submit", Submission(entry, desk, transfers).submit, methods=["POST"]),
    ]
