"""A host's key file as one source of keys: what it has is added, and what it has no longer ends.

Deciding is pure, so that the same rules hold in memory while the database is away.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts import tables
from lingbi.accounts.database import Database, now_of
from lingbi.accounts.facts import KEY
from lingbi.accounts.facts import PAGE as PAGE_KIND
from lingbi.accounts.key_file import DEFAULT, PAGE, Key
from lingbi.accounts.keys.changes import bump, locked_revision
from lingbi.accounts.keys.records import FILE, Account, Records, Secret, read_records

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """What changes by a key file: new keys, new secrets, and secrets that are gone from it; notes: what was not taken."""

    keys: tuple[Account, ...] = ()
    secrets: tuple[Secret, ...] = ()
    gone: tuple[Secret, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.secrets or self.gone)


def decide(records: Records, lines: Sequence[Key], host: str, now: float) -> Taken:
    """What the lines of this host's key file change. A key or secret that was ended by command stays ended."""
    here = {secret.digest: secret for secret in records.secrets if secret.host == host and secret.origin == FILE}
    known = records.ends_of_secrets()
    keys, secrets, notes = [], [], []
    for line in lines:
        owner, ends_at = known.get(line.digest, (line.name, None))
        mine = here.get(line.digest)
        is_renamed = mine is not None and mine.key != line.name and not _is_elsewhere(records, line.digest, host)
        if owner != line.name and not is_renamed:
            notes.append(f"the key {line.name} of the key file is the key {owner} already; it counts as that")
        elif ends_at is None and (mine is None or is_renamed) and not _is_revoked(records, line.name):
            if line.name not in records.keys:
                keys.append(account_of(line, now))
            secrets.append(Secret(line.digest, line.name, FILE, host, now))
    digests = {line.digest for line in lines}
    renamed = {secret.digest for secret in secrets}
    gone = [old for old in here.values() if old.digest in renamed or (old.digest not in digests and not old.ends_at)]
    return Taken(tuple(keys), tuple(secrets), tuple(gone), tuple(notes))


def account_of(line: Key, now: float) -> Account:
    """A line of a key file as a new account: the operator's own key is an administrator's, and `ui` the page's."""
    kind = PAGE_KIND if line.name == PAGE else KEY
    return Account(line.name, kind, is_admin=line.name == DEFAULT, concurrency=line.limit, created_at=now)


def _is_elsewhere(records: Records, digest: str, host: str) -> bool:
    return any(secret.digest == digest and secret.host != host for secret in records.secrets)


def _is_revoked(records: Records, name: str) -> bool:
    key = records.keys.get(name)
    return key is not None and key.revoked_at is not None


def applied(records: Records, taken: Taken) -> Records:
    """The records after this change."""
    secrets = (*(old for old in records.secrets if old not in taken.gone), *taken.secrets)
    return dataclasses.replace(records, keys=records.keys | {key.name: key for key in taken.keys}, secrets=secrets)


def take_over(database: Database, lines: Sequence[Key], host: str) -> Records:
    """Have the database follow this host's key file; returns what it then holds. Raises DatabaseAway."""
    with database.begin() as connection:
        locked_revision(connection)  # whoever else changes keys waits, so that nothing decided here is old
        records = read_records(connection)
        taken = decide(records, lines, host, now_of(connection))
        for note in taken.notes:
            log.warning("%s", note)
        if not taken:
            return records
        _write(connection, taken)
        bump(connection)
        log.info("the key file of %s was taken over: %d new, %d gone", host, len(taken.secrets), len(taken.gone))
        return read_records(connection)


def _write(connection: Connection, taken: Taken) -> None:
    table = tables.secrets
    for old in taken.gone:
        connection.execute(sa.delete(table).where(table.c.digest == old.digest, table.c.host == old.host))
    if taken.keys:
        connection.execute(tables.keys.insert(), [dataclasses.asdict(key) for key in taken.keys])
    if taken.secrets:
        found = connection.execute(sa.select(tables.keys.c.name, tables.keys.c.id))
        numbers: dict[str, int] = {name: number for name, number in found}
        rows = [dataclasses.asdict(new) | {"key_id": numbers[new.key]} for new in taken.secrets]
        connection.execute(table.insert(), [{name: row[name] for name in row if name != "key"} for row in rows])
