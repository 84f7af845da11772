"""Accounts of those who log in at the page: `ui/NAME`, without a secret, made when they first ask, in the group `visitors`."""

from __future__ import annotations

import dataclasses
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import unquote

import sqlalchemy as sa

from lingbi.accounts.database import Database, DatabaseAway, now_in
from lingbi.accounts.facts import VISITOR
from lingbi.accounts.keys.changes import bump
from lingbi.accounts.keys.records import Account
from lingbi.accounts.tables import groups, keys

if TYPE_CHECKING:
    from lingbi.accounts.facts import KeyFacts
    from lingbi.accounts.keys.records import Records
    from lingbi.accounts.ring import KeyRing

log = logging.getLogger(__name__)
GROUP, PREFIX = "visitors", "ui/"
LOGIN = re.compile(r"[\w.@-]{1,64}")


class Visitors:
    """database: None where only a key file counts; visitors then have no limits."""

    def __init__(self, ring: KeyRing, database: Database | None) -> None:
        self.ring, self.database = ring, database
        self._making: set[str] = set()
        self._maker = ThreadPoolExecutor(1, "visitors")

    def find(self, login: str) -> KeyFacts:
        """The account of a login. One that asks for the first time is made meanwhile, and nobody waits for that."""
        name = f"{PREFIX}{login}"
        if known := self.ring.account(name):
            return known
        if self.database and name not in self._making:
            self._making.add(name)
            self._maker.submit(self._make, self.database, name)
        return stranger(self.ring.records, name)

    def _make(self, database: Database, name: str) -> None:
        try:
            with database.begin() as connection:
                connection.execute(database.insert(groups).values(name=GROUP).on_conflict_do_nothing())
                row = dataclasses.asdict(account_of(name)) | {"created_at": now_in(connection)}
                made = connection.execute(database.insert(keys).values(row).on_conflict_do_nothing())
                if made.rowcount:
                    bump(connection)
        except DatabaseAway:
            self._making.discard(name)  # it is tried again with the next request
        except sa.exc.SQLAlchemyError:
            log.exception("the account %s could not be made", name)


def login_of(header: bytes) -> str | None:
    """The login in a header, in UTF-8 and percent-encoded; None where it is no login's name."""
    try:
        login = unquote(header.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        return None
    return login if LOGIN.fullmatch(login) else None


def account_of(name: str) -> Account:
    """A new visitor's account."""
    return Account(name, VISITOR, note="a login of the page", group_name=GROUP)


def stranger(records: Records, name: str) -> KeyFacts:
    """What is known of a visitor who has no account yet: what the group says."""
    return dataclasses.replace(records, keys={name: account_of(name)}).facts()[name]
