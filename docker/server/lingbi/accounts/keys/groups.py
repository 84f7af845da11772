"""Changes of groups, as changes.py makes them of keys."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lingbi.accounts import tables
from lingbi.accounts.database import Database, now_of
from lingbi.accounts.keys.changes import Change, Exists, Unknown, Unwise, begin_change, forget_limits, set_limits
from lingbi.accounts.keys.records import Records
from lingbi.accounts.keys.terms import name_of


def add_group(database: Database, name: str, change: Change) -> None:
    """Make a group. Raises Exists."""
    name_of(name)
    with database.begin() as connection:
        if name in begin_change(connection).groups:
            raise Exists(f"there is a group {name} already; `group limit {name}` changes it")
        connection.execute(tables.groups.insert().values({"note": ""} | dict(change.values) | {"name": name}))
        _set_limits(connection, name, change)


def change_group(database: Database, name: str, change: Change) -> None:
    """Change what the keys of a group may do. Raises Unknown."""
    with database.begin() as connection:
        check_group(begin_change(connection), name)
        if change.values:
            table = tables.groups
            connection.execute(sa.update(table).where(table.c.name == name).values(dict(change.values)))
        _set_limits(connection, name, change)


def remove_group(database: Database, name: str, keep_keys: bool) -> int:
    """Remove a group, and return how many keys were in it. Raises Unknown; Unwise for one with keys.

    keep_keys: its keys go on without the group's limits; else a group is removed only when all of them have ended.
    """
    with database.begin() as connection:
        records = begin_change(connection)
        check_group(records, name)
        now = now_of(connection)
        inside = [facts for facts in records.facts().values() if facts.group == name]
        alive = [facts.name for facts in inside if not facts.has_ended(now)]
        if alive and not keep_keys:
            raise Unwise(
                f"the group {name} has {len(alive)} keys ({', '.join(alive[:3])}{' …' if len(alive) > 3 else ''}), which would "
                "lose its limits; revoke them, give them another group, or say --keep-keys"
            )
        connection.execute(sa.update(tables.keys).where(tables.keys.c.group_name == name).values(group_name=None))
        for kind in ("group", "member"):
            forget_limits(connection, kind, name)
        connection.execute(sa.delete(tables.groups).where(tables.groups.c.name == name))
        return len(inside)


def check_group(records: Records, name: str) -> None:
    """Raise Unknown where there is no such group."""
    if name not in records.groups:
        raise Unknown(f"there is no group {name[:100]!r}; `group list` shows all")


def _set_limits(connection: Connection, name: str, change: Change) -> None:
    set_limits(connection, "group", name, change.limits)
    set_limits(connection, "member", name, change.members)
