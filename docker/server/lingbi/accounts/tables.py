"""The tables of the accounts' database, for SQLite and PostgreSQL alike; `migrations/` makes them.

An account is a row of `keys`. Times are seconds since the epoch (UTC); a day is the lab's own, as in 2026-05-01.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)

metadata = MetaData()


def counts() -> list[Column[int]]:
    """The columns that a request adds to; gpu_ms: time in the vision encoder and in the engine, milliseconds."""
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "images", "gpu_ms")
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in names]


# concurrency: of all its keys together; member_…: of each of its keys, where that says nothing itself. models, ends_at: the
# same of each.
groups = Table(
    "groups",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("note", String(500), nullable=False, server_default=""),
    Column("concurrency", Integer),
    Column("member_concurrency", Integer),
    Column("member_weight", Integer),
    Column("models", String(2000)),  # with commas; None: all
    Column("ends_at", Double),
)

# kind: `key` (a person or a program), `page` (the page's own key), `visitor` (a login of the page; it has no secret).
keys = Table(
    "keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("kind", String(10), nullable=False, server_default="key"),
    Column("owner", String(200), nullable=False, server_default=""),
    Column("note", String(500), nullable=False, server_default=""),
    Column("group_name", String(64), ForeignKey("groups.name")),
    Column("is_admin", Boolean, nullable=False, server_default="0"),
    Column("weight", Integer),
    Column("concurrency", Integer),
    Column("models", String(2000)),
    Column("created_at", Double, nullable=False),
    Column("ends_at", Double),
    Column("revoked_at", Double),
)

# A key's secrets: more than one while a rotation overlaps. origin: `command`, or `file` for those of a host's key file; one
# that lies in the files of several hosts has a row for each.
secrets = Table(
    "secrets",
    metadata,
    Column("digest", String(64)),  # SHA-256, in hex
    Column("key_id", Integer, ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
    Column("origin", String(10), nullable=False),
    Column("host", String(200), nullable=False, server_default=""),
    Column("created_at", Double, nullable=False),
    Column("ends_at", Double),
    PrimaryKeyConstraint("digest", "host"),
    Index("secrets_of_key", "key_id"),
)

# subject_kind: `key`, `group` (all keys of it together) or `member` (each key of the group for itself); subject: its name;
# measure: requests, tokens or images; period: minute, day or month.
limits = Table(
    "limits",
    metadata,
    Column("subject_kind", String(10)),
    Column("subject", String(80)),
    Column("measure", String(10)),
    Column("period", String(10)),
    Column("most", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject_kind", "subject", "measure", "period"),
)

# One row, whose number grows with every change of keys, secrets, groups and limits: whoever keeps a copy compares it.
changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)


def _usage(name: str, period: "Column[Any]", *subject: "Column[str]") -> Table:
    """A table of counts by period and subject. SQLite keeps its rows in the order of their key, so that a span is read at once."""
    columns = [
        period,
        *subject,
        Column("model", String(200), nullable=False),
        Column("status", Integer, nullable=False),
    ]
    primary = PrimaryKeyConstraint(*(column.name for column in columns))
    by_key = [Index(f"{name}_of_key", "key", period.name)] if subject else []
    return Table(name, metadata, *columns, *counts(), primary, *by_key, sqlite_with_rowid=False)


def _key() -> "Column[str]":
    return Column("key", String(80), nullable=False)


def _hour() -> "Column[int]":
    return Column("hour", Integer, nullable=False)  # hours since the epoch


def _day() -> "Column[str]":
    return Column("day", String(10), nullable=False)  # the lab's own


# The same counts by hours, by the lab's days and by its months, so that years are read as fast as a day.
usage_hours = _usage("usage_hours", _hour(), _key())
usage_days = _usage("usage_days", _day(), _key())
usage_months = _usage("usage_months", Column("month", String(7), nullable=False), _key())
# And of all keys together, for what is asked without a key.
total_hours = _usage("total_hours", _hour())
total_days = _usage("total_days", _day())

# What counts against limits, of those who have any. subject: `key:NAME` or `group:NAME`; period_start: of the minute, day
# or month, seconds.
quota_use = Table(
    "quota_use",
    metadata,
    Column("subject", String(90)),
    Column("period", String(10)),
    Column("period_start", BigInteger),
    Column("requests", BigInteger, nullable=False, server_default="0"),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("images", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("subject", "period", "period_start"),
)

# What running requests, and those whose entries are still to be counted, may add at most to what counts against limits; a
# request of a key without limits has no row. request: its entry's id; is_over: it was let in though its tokens might not
# fit; seen_at: when its worker last said that it lives.
holds = Table(
    "holds",
    metadata,
    Column("request", String(100)),
    Column("subject", String(90)),
    Column("worker", String(200), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("images", BigInteger, nullable=False),
    Column("is_over", Boolean, nullable=False),
    Column("seen_at", Double, nullable=False),
    PrimaryKeyConstraint("request", "subject"),
    Index("holds_of_subject", "subject"),
)

# How far each journal was counted; in one transaction with what it counted, so that nothing counts twice.
journals = Table(
    "journals",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("position", BigInteger, nullable=False),  # bytes
    Column("host", String(200), nullable=False),
    Column("seen_at", Double, nullable=False),
)
