"""All keys, groups and limits as they are kept: read from the database, or from the copy that a host has of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts import tables
from lingbi.accounts.database import now_in
from lingbi.accounts.facts import KEY, KeyFacts, Limit

COMMAND, FILE = "command", "file"  # origins of secrets


@dataclass(frozen=True)
class Group:
    """A group; concurrency: of all its keys together, member_…: of each that says nothing itself."""

    name: str
    note: str = ""
    concurrency: int | None = None
    member_concurrency: int | None = None
    member_weight: int | None = None
    models: str | None = None
    ends_at: float | None = None


@dataclass(frozen=True)
class Account:
    """A key without its secrets."""

    name: str
    kind: str = KEY
    owner: str = ""
    note: str = ""
    group_name: str | None = None
    is_admin: bool = False
    weight: int | None = None
    concurrency: int | None = None
    models: str | None = None
    created_at: float = 0.0
    ends_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True)
class Secret:
    """One secret of a key: its SHA-256 in hex; origin: COMMAND, or FILE for one in the key file of a host."""

    digest: str
    key: str
    origin: str = COMMAND
    host: str = ""
    created_at: float = 0.0
    ends_at: float | None = None


@dataclass(frozen=True)
class Records:
    """Everything that keys need, at one revision."""

    revision: int = -1
    groups: dict[str, Group] = field(default_factory=dict)
    keys: dict[str, Account] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    limits: tuple[Limit, ...] = ()

    def limits_of(self, kind: str, subject: str) -> list[Limit]:
        """The limits of one subject."""
        return [limit for limit in self.limits if (limit.subject_kind, limit.subject) == (kind, subject)]

    def facts(self) -> dict[str, KeyFacts]:
        """What the server has to know of each key, by its name."""
        limits: dict[tuple[str, str], list[Limit]] = {}
        for limit in self.limits:
            limits.setdefault((limit.subject_kind, limit.subject), []).append(limit)
        return {name: self._facts(key, limits) for name, key in self.keys.items()}

    def _facts(self, key: Account, limits: dict[tuple[str, str], list[Limit]]) -> KeyFacts:
        group = self.groups.get(key.group_name or "") or Group("")
        models = _first(key.models, group.models)
        own = limits.get(("key", key.name), [])
        theirs = limits.get(("member", group.name), [])
        set_here = {(limit.measure, limit.period) for limit in own}
        members = [limit for limit in theirs if (limit.measure, limit.period) not in set_here]
        return KeyFacts(
            name=key.name,
            kind=key.kind,
            group=key.group_name,
            is_admin=key.is_admin,
            weight=_first(key.weight, group.member_weight),
            concurrency=_first(key.concurrency, group.member_concurrency),
            group_concurrency=group.concurrency,
            models=None if models is None else frozenset(filter(None, models.split(","))),
            ends_at=_first(key.ends_at, group.ends_at),
            limits=(*own, *members, *limits.get(("group", group.name), [])),
            is_revoked=key.revoked_at is not None,
        )

    def by_digest(self) -> dict[str, KeyFacts]:
        """The same as each secret opens it: to the secret's end. One that lies on several hosts lasts as long as on any."""
        facts, found = self.facts(), {}
        for digest, (key, ends_at) in self.ends_of_secrets().items():
            known = facts[key]
            ends = [end for end in (known.ends_at, ends_at) if end is not None]
            found[digest] = known if ends_at is None else dataclasses.replace(known, ends_at=min(ends))
        return found

    def ends_of_secrets(self) -> dict[str, tuple[str, float | None]]:
        """(key, end) by digest."""
        found: dict[str, tuple[str, float | None]] = {}
        for secret in self.secrets:
            known = found.get(secret.digest)
            if known is None or (known[1] is not None and (secret.ends_at is None or secret.ends_at > known[1])):
                found[secret.digest] = (secret.key, secret.ends_at)
        return found


def _first(own: Any, groups: Any) -> Any:
    return groups if own is None else own


def read_records(connection: Connection) -> Records:
    """All that the database holds."""
    keys, secrets = tables.keys, tables.secrets
    accounts = _select(Account, keys).order_by(keys.c.id)
    owned = _select(Secret, secrets, {"key": keys.c.name}).join(keys).order_by(secrets.c.created_at, secrets.c.digest)
    groups = _select(Group, tables.groups).order_by(tables.groups.c.name)
    limits = _select(Limit, tables.limits).order_by(*tables.limits.primary_key)
    return Records(
        look(connection)[0],
        {row[0]: Group(*row) for row in connection.execute(groups)},
        {row[0]: Account(*row) for row in connection.execute(accounts)},
        tuple(Secret(*row) for row in connection.execute(owned)),
        tuple(Limit(*row) for row in connection.execute(limits)),
    )


def _select(kind: type, table: sa.Table, others: Mapping[str, sa.Column[Any]] | None = None) -> sa.Select[Any]:
    """What a row of this kind is made of, in the order of its fields; others: those that are columns of another table."""
    columns = table.c if others is None else {**table.c, **others}
    return sa.select(*(columns[part.name] for part in dataclasses.fields(kind))).select_from(table)


def look(connection: Connection) -> tuple[int, float]:
    """The number of the last change, and the database's time."""
    found = connection.execute(sa.select(tables.changes.c.revision, now_in(connection).label("now"))).one()
    return int(found.revision), found.now


def to_data(records: Records) -> dict[str, Any]:
    """The records as JSON data; secrets are digests already."""
    return {
        "revision": records.revision,
        "groups": [dataclasses.asdict(group) for group in records.groups.values()],
        "keys": [dataclasses.asdict(key) for key in records.keys.values()],
        "secrets": [dataclasses.asdict(secret) for secret in records.secrets],
        "limits": [dataclasses.asdict(limit) for limit in records.limits],
    }


def from_data(data: dict[str, Any]) -> Records:
    """What to_data made. Raises LookupError, TypeError or ValueError for anything else."""
    return Records(
        int(data["revision"]),
        {group["name"]: Group(**group) for group in data["groups"]},
        {key["name"]: Account(**key) for key in data["keys"]},
        tuple(Secret(**secret) for secret in data["secrets"]),
        tuple(Limit(**limit) for limit in data["limits"]),
    )
