"""Changes of keys: each is one transaction, which raises the number that whoever keeps a copy compares."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts import tables
from lingbi.accounts.database import Database, now_in, now_of
from lingbi.accounts.facts import VISITOR, KeyFacts
from lingbi.accounts.key_file import DEFAULT, KEY_BYTES, PAGE, digest
from lingbi.accounts.keys.records import COMMAND, Records, read_records
from lingbi.accounts.keys.terms import BadTerm, Limits, name_of
from lingbi.errors import ConfigurationError

DAY_S = 86_400.0
NEW = {"owner": "", "note": "", "group_name": None, "is_admin": False, "weight": None, "concurrency": None}
NEW |= {"models": None, "ends_at": None, "revoked_at": None}


class Unknown(ConfigurationError):
    """There is no key or group of this name."""


class Exists(ConfigurationError):
    """There is one of this name already."""


class Unwise(ConfigurationError):
    """The change would lock somebody out who is needed."""


@dataclass(frozen=True)
class Change:
    """What is new: values by column; limits of the key, or of a group's keys together; members: of each of them."""

    values: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    members: Limits = field(default_factory=dict)


def locked_revision(connection: Connection) -> int:
    """The number of the last change; until this transaction ends, nobody makes another."""
    return int(connection.execute(sa.select(tables.changes.c.revision).with_for_update()).scalar_one())


def bump(connection: Connection) -> None:
    """Raise the number of the last change."""
    connection.execute(sa.update(tables.changes).values(revision=tables.changes.c.revision + 1))


def add_key(
    database: Database, name: str, change: Change, begin_anew: Callable[[Connection], None] | None = None
) -> str:
    """Make a key and return it: only its digest is kept. A name whose key was revoked begins anew. Raises Exists.

    begin_anew: forgets what the former holder of such a name had, in the same transaction (lingbi.batch.owned).
    """
    name_of(name)
    with database.begin() as connection:
        records = _begin(connection)
        _check_group(records, change)
        known = records.keys.get(name)
        if known and known.revoked_at is None:
            raise Exists(f"there is a key {name} already; rotate it for a new secret, revoke it, or take another name")
        values = NEW | dict(change.values)
        if known:
            connection.execute(sa.update(tables.keys).where(tables.keys.c.name == name).values(values))
            forget_limits(connection, "key", name)
            if begin_anew:
                begin_anew(connection)
        else:
            known_by = {"name": name, "kind": "key", "created_at": now_in(connection)}
            connection.execute(tables.keys.insert().values(values | known_by))
        set_limits(connection, "key", name, change.limits)
        return _new_secret(connection, name)


def change_key(database: Database, name: str, change: Change) -> None:
    """Change what a key may do, or what is noted of it. Raises Unknown, Unwise.

    A visitor, who has no secret that could be lost, is let in again after `revoke` by another end.
    """
    with database.begin() as connection:
        records = _begin(connection)
        _known(records, name)
        _check_group(records, change)
        values = dict(change.values)
        if records.keys[name].kind == VISITOR and "ends_at" in values:
            values["revoked_at"] = None
        if values:
            connection.execute(sa.update(tables.keys).where(tables.keys.c.name == name).values(values))
        set_limits(connection, "key", name, change.limits)
        _check_administrators(connection, records)


def rotate_key(database: Database, name: str, overlap_s: float) -> str:
    """Make another secret for a key and return it; the old ones end after the overlap. Raises Unknown, Unwise."""
    if name in (DEFAULT, PAGE):
        raise Unwise(
            f"the key {name} is each host's own, which lies there in plain: write another one into its file "
            f"({'api-key' if name == DEFAULT else 'ui-key'} in the state folder or secrets/), and start the host again"
        )
    with database.begin() as connection:
        facts, now = _known(_begin(connection), name), now_of(connection)
        if facts.has_ended(now):
            raise Unwise(
                f"the key {name} has ended; `add {name}` begins it anew after it was revoked, `limit` moves its end"
            )
        _end_secrets(connection, name, now + overlap_s)
        return _new_secret(connection, name)


def revoke_key(database: Database, name: str) -> None:
    """End a key and all its secrets now; what it used stays counted. Raises Unknown, Unwise."""
    with database.begin() as connection:
        records = _begin(connection)
        _known(records, name)
        key, now = tables.keys, now_of(connection)
        at = sa.func.coalesce(key.c.revoked_at, now)
        connection.execute(sa.update(key).where(key.c.name == name).values(revoked_at=at))
        _end_secrets(connection, name, now)
        _check_administrators(connection, records)


def forget_host(database: Database, host: str) -> int:
    """End the secrets that only lay in the key file of a host that is gone; returns how many. Raises Unknown."""
    with database.begin() as connection:
        records = _begin(connection)
        hosts = sorted({secret.host for secret in records.secrets if secret.host})
        if host not in hosts:
            raise Unknown(f"no key lies on a host {host!r}; keys lie on: {', '.join(hosts) or 'none'}")
        return connection.execute(sa.delete(tables.secrets).where(tables.secrets.c.host == host)).rowcount


def read(database: Database) -> Records:
    """All keys, groups and limits. Raises DatabaseAway."""
    with database.read() as connection:
        return read_records(connection)


def begin_change(connection: Connection) -> Records:
    """The records before a change, and its number for whoever compares."""
    return _begin(connection)


def _begin(connection: Connection) -> Records:
    locked_revision(connection)
    bump(connection)
    return read_records(connection)


def _known(records: Records, name: str) -> KeyFacts:
    facts = records.facts().get(name)
    if facts is None:
        raise Unknown(f"there is no key {name[:100]!r}; `list` shows all")
    return facts


def _check_group(records: Records, change: Change) -> None:
    group = change.values.get("group_name")
    if group is not None and group not in records.groups:
        raise BadTerm("group", f"there is no group {group[:100]!r}; make it first: group add {group[:100]}")


def _check_administrators(connection: Connection, before: Records) -> None:
    """Raise Unwise where the last administrator's key would end: the pages and /v1/admin would be shut for all."""
    now = now_of(connection)
    if _has_administrator(before, now) and not _has_administrator(read_records(connection), now):
        raise Unwise("this is the last administrator's key; make another first: `add NAME --admin`")


def _has_administrator(records: Records, now: float) -> bool:
    return any(facts.is_admin and not facts.has_ended(now) for facts in records.by_digest().values())


def _new_secret(connection: Connection, name: str) -> str:
    key = f"lb-{secrets.token_urlsafe(KEY_BYTES)}"
    number = sa.select(tables.keys.c.id).where(tables.keys.c.name == name).scalar_subquery()
    row = {"digest": digest(key.encode()), "key_id": number, "origin": COMMAND, "host": ""}
    connection.execute(tables.secrets.insert().values(row | {"created_at": now_in(connection)}))
    return key


def _end_secrets(connection: Connection, name: str, at: float) -> None:
    """Let the secrets of a key end at this time, if none of them ends before."""
    table = tables.secrets
    number = sa.select(tables.keys.c.id).where(tables.keys.c.name == name).scalar_subquery()
    later = sa.or_(table.c.ends_at.is_(None), table.c.ends_at > at)
    connection.execute(sa.update(table).where(table.c.key_id == number, later).values(ends_at=at))


def set_limits(connection: Connection, kind: str, subject: str, limits: Limits) -> None:
    """Set or take away limits of a subject."""
    table = tables.limits
    for (measure, period), most in limits.items():
        row = {"subject_kind": kind, "subject": subject, "measure": measure, "period": period}
        connection.execute(sa.delete(table).filter_by(**row))
        if most is not None:
            connection.execute(table.insert().values(row | {"most": most}))


def forget_limits(connection: Connection, kind: str, subject: str) -> None:
    """Take away all limits of a subject."""
    connection.execute(sa.delete(tables.limits).filter_by(subject_kind=kind, subject=subject))
