"""One owner's usage: given out whole, or made nobody's. Files and batches go along: see lingbi.batch.owned.

To erase keeps the sums of the server true: the rows stay, under a name that is nobody's, and an owner's keys lose the
owner's name and the note. What is not counted yet when it is erased counts under the key's name afterwards, as does what
its keys are used for from then on: revoke them first.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database
from lingbi.accounts.entries import Counts
from lingbi.accounts.tables import keys, limits, quota_use, secrets, usage_days, usage_hours, usage_months
from lingbi.errors import ConfigurationError

NOBODY = "(erased)"  # whose rows they are then; no key may be called so
VISITOR_PREFIX = "ui/"
TABLES = (usage_hours, usage_days, usage_months)
Rows = list[dict[str, Any]]


def names_of(connection: Connection, owner: str | None, key: str | None) -> list[str]:
    """The accounts of an owner, who may be a login of the page, or of one key, which need not be there any more.

    Raises ConfigurationError where there is none.
    """
    if key is not None:
        found = {key} if _is_known(connection, key) else set()
    else:
        whose = (keys.c.owner == owner) | (keys.c.name == f"{VISITOR_PREFIX}{owner}")
        found = set(connection.execute(sa.select(keys.c.name).where(whose)).scalars()) if owner else set()
    if not found or found == {NOBODY}:
        raise ConfigurationError(
            f"nobody has a key with the {'name' if key is not None else 'owner'} {key if key is not None else owner!r}; "
            "`scripts/key list` shows the keys, and `scripts/usage --by key` what was used"
        )
    return sorted(found)


def _is_known(connection: Connection, name: str) -> bool:
    tables = ((keys, keys.c.name), *((table, table.c.key) for table in TABLES))
    return any(
        connection.execute(sa.select(sa.literal(1)).where(column == name).limit(1)).scalar() for _, column in tables
    )


def export(database: Database, names: list[str]) -> dict[str, Rows]:
    """All rows of the ledger about these keys, by table; secrets without their digests. Raises DatabaseAway."""
    with database.read() as connection:
        subjects = [f"key:{name}" for name in names]
        of_keys = sa.select(keys.c.id).where(keys.c.name.in_(names))
        known = [column for column in secrets.c if column is not secrets.c.digest]
        wanted = {
            "keys": sa.select(keys).where(keys.c.name.in_(names)),
            "secrets": sa.select(*known).where(secrets.c.key_id.in_(of_keys)),
            "limits": sa.select(limits).where(limits.c.subject_kind == "key", limits.c.subject.in_(names)),
            "quota_use": sa.select(quota_use).where(quota_use.c.subject.in_(subjects)),
        }
        wanted |= {table.name: sa.select(table).where(table.c.key.in_(names)) for table in TABLES}
        return {name: [dict(row) for row in connection.execute(rows).mappings()] for name, rows in wanted.items()}


def erase(connection: Connection, database: Database, names: list[str]) -> None:
    """Make the usage of these keys nobody's."""
    for table in TABLES:
        _move(connection, database, table, names)
    connection.execute(sa.delete(quota_use).where(quota_use.c.subject.in_([f"key:{name}" for name in names])))
    connection.execute(sa.update(keys).where(keys.c.name.in_(names)).values(owner="", note=""))


def _move(connection: Connection, database: Database, table: sa.Table, names: list[str]) -> None:
    """Add the rows of some keys to those of nobody."""
    others = [column for column in table.primary_key.columns if column.name != "key"]
    sums = [sa.func.sum(table.c[name]).label(name) for name in Counts._fields]
    # SQLite takes an ON CONFLICT after a SELECT only where that has a WHERE, which tells them apart.
    found = sa.select(sa.literal(NOBODY).label("key"), *others, *sums).where(table.c.key.in_(names)).group_by(*others)
    insert = database.insert(table)
    insert = insert.from_select(["key", *(column.name for column in others), *Counts._fields], found)
    more = {name: table.c[name] + insert.excluded[name] for name in Counts._fields}
    connection.execute(insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=more))
    connection.execute(sa.delete(table).where(table.c.key.in_(names)))
