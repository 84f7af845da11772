"""The tables of files and batches, in the accounts' database. Times are seconds since the epoch (UTC)."""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from lingbi.accounts.tables import metadata

WAITS, RUNS, DONE = 0, 1, 2  # states of a line

# kind: `stored` (uploaded), or `output` or `errors` of a batch, whose content is made of its lines when it is asked for;
# `uploading` or `removed`: there is none for anybody, and what there may be of its content is to be removed once it expires.
files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(80), nullable=False),  # name of the key
    Column("kind", String(10), nullable=False),
    Column("batch_id", String(64)),
    Column("filename", String(255), nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Index("files_of_owner", "owner", "created_at"),
)

# The content of uploaded files, where several hosts share the database and no folder.
file_parts = Table(
    "file_parts",
    metadata,
    Column("file_id", String(64)),
    Column("part", Integer),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("file_id", "part"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(80), nullable=False),
    Column("endpoint", String(40), nullable=False),
    Column("input_file_id", String(64), nullable=False),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("completion_window", String(10), nullable=False),
    Column("metadata", Text),  # JSON
    Column("errors", Text),  # JSON: why it failed validation
    Column("status", String(12), nullable=False),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("completed", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("worker", String(200)),  # that reads its input
    *(
        Column(f"{moment}_at", Double)
        for moment in (
            "created",
            "in_progress",
            "expires",
            "finalizing",
            "completed",
            "failed",
            "expired",
            "cancelling",
            "cancelled",
        )
    ),
    Index("batches_of_owner", "owner", "created_at"),
    Index("batches_by_status", "status", "created_at"),
)

# state: as above; DONE: it has its result. place, size: of the line in the input file, bytes.
batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch_id", String(64)),
    Column("line", Integer),
    Column("custom_id", String(512), nullable=False),
    Column("model", String(200), nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("state", Integer, nullable=False, server_default="0"),
    Column("worker", String(200)),
    Column("status_code", Integer),
    Column("result", Text),  # JSON: a line of the output or errors file
    Column("result_bytes", BigInteger),
    PrimaryKeyConstraint("batch_id", "line"),
    ForeignKeyConstraint(["batch_id"], ["batches.id"], ondelete="CASCADE"),
    Index("batch_lines_by_state", "batch_id", "state", "line"),
)

# The workers that take lines; the lines of one that is not seen any more wait again.
batch_workers = Table(
    "batch_workers",
    metadata,
    Column("worker", String(200), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("seen_at", Double, nullable=False),
)
