"""The accounts' first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def counts() -> list[sa.Column[int]]:
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "images", "gpu_ms")
    return [sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in names]


def usage_table(name: str, period: "sa.Column[Any]", has_key: bool) -> None:
    key: list[sa.Column[Any]] = [sa.Column("key", sa.String(80), nullable=False)] if has_key else []
    model, status = sa.Column("model", sa.String(200), nullable=False), sa.Column("status", sa.Integer, nullable=False)
    subject: list[sa.Column[Any]] = [period, *key, model, status]
    primary = sa.PrimaryKeyConstraint(*(column.name for column in subject))
    op.create_table(name, *subject, *counts(), primary, sqlite_with_rowid=False)
    if has_key:
        op.create_index(f"{name}_of_key", name, ["key", period.name])


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("note", sa.String(500), nullable=False, server_default=""),
        sa.Column("concurrency", sa.Integer),
        sa.Column("member_concurrency", sa.Integer),
        sa.Column("member_weight", sa.Integer),
        sa.Column("models", sa.String(2000)),
        sa.Column("ends_at", sa.Double),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(80), nullable=False, unique=True),
        sa.Column("kind", sa.String(10), nullable=False, server_default="key"),
        sa.Column("owner", sa.String(200), nullable=False, server_default=""),
        sa.Column("note", sa.String(500), nullable=False, server_default=""),
        sa.Column("group_name", sa.String(64), sa.ForeignKey("groups.name")),
        sa.Column("is_admin", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("weight", sa.Integer),
        sa.Column("concurrency", sa.Integer),
        sa.Column("models", sa.String(2000)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ends_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_table(
        "secrets",
        sa.Column("digest", sa.String(64)),
        sa.Column("key_id", sa.Integer, sa.ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
        sa.Column("origin", sa.String(10), nullable=False),
        sa.Column("host", sa.String(200), nullable=False, server_default=""),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ends_at", sa.Double),
        sa.PrimaryKeyConstraint("digest", "host"),
    )
    op.create_table(
        "limits",
        sa.Column("subject_kind", sa.String(10)),
        sa.Column("subject", sa.String(80)),
        sa.Column("measure", sa.String(10)),
        sa.Column("period", sa.String(10)),
        sa.Column("most", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject_kind", "subject", "measure", "period"),
    )
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    usage_table("usage_hours", sa.Column("hour", sa.Integer, nullable=False), has_key=True)
    usage_table("usage_days", sa.Column("day", sa.String(10), nullable=False), has_key=True)
    usage_table("usage_months", sa.Column("month", sa.String(7), nullable=False), has_key=True)
    usage_table("total_hours", sa.Column("hour", sa.Integer, nullable=False), has_key=False)
    usage_table("total_days", sa.Column("day", sa.String(10), nullable=False), has_key=False)
    op.create_table(
        "quota_use",
        sa.Column("subject", sa.String(90)),
        sa.Column("period", sa.String(10)),
        sa.Column("period_start", sa.BigInteger),
        sa.Column("requests", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("tokens", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("images", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("subject", "period", "period_start"),
    )
    op.create_table(
        "holds",
        sa.Column("request", sa.String(100)),
        sa.Column("subject", sa.String(90)),
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("images", sa.BigInteger, nullable=False),
        sa.Column("is_over", sa.Boolean, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("request", "subject"),
    )
    op.create_table(
        "journals",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_index("secrets_of_key", "secrets", ["key_id"])
    op.create_index("holds_of_subject", "holds", ["subject"])
    op.execute("INSERT INTO changes (id, revision) VALUES (1, 0)")
