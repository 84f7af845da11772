"""The accounts' database: SQLite beside the worker's other state, or the PostgreSQL that a lab names.

SQLAlchemy reaches both with the same statements, and Alembic brings an older one up to date; both are the field's own
libraries for this. Whoever reads or writes does it in a transaction that ends soon: several workers share the database.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import URL, Connection, Engine

from lingbi.errors import ConfigurationError, LingbiError

HEAD = "0002"  # the newest revision under migrations/
BUSY_S = 5.0  # SQLite waits so long for another's transaction
MIGRATION_S = 60  # and who migrates for others that do, which takes seconds on a busy machine
CONNECT_S = 3
UNHEARD_S = 10  # without a sign of PostgreSQL's host, as where a cable was cut, a connection is given up
UNENDED_S = 15  # a transaction whose client says nothing: a host that vanished in one must not hold all others up
NO_DATABASE = "this server has no database of accounts"
SCRIPTS = Path(__file__).with_name("migrations")
MIGRATION_LOCK = 7_236_014  # of pg_advisory_lock: any number that nobody else takes
# Statements or values that are wrong; all else (no connection, a full disk, a standby, a broken file) is the database's.
FAULTS_OF_OURS = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError)


class DatabaseAway(LingbiError):
    """The database does not answer now; what was to be written can be written later."""


class DatabaseRefuses(DatabaseAway):
    """The database would answer, but not as it is configured: waiting alone changes nothing."""


class Database:
    """One process's way to the accounts' database. Connections are made when they are needed."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if self.is_sqlite else _postgresql(url)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write; rolled back if the block raises. Raises DatabaseAway."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises DatabaseAway."""
        with self._translated(), self.engine.connect().execution_options(lingbi_reads=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DatabaseError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            remedy = remedy_for(reason)
            if isinstance(error, FAULTS_OF_OURS) and not remedy:
                raise
            if remedy:
                raise DatabaseRefuses(f"the accounts' database {self} cannot be used: {reason}; {remedy}") from error
            raise DatabaseAway(f"the accounts' database {self} does not answer: {reason}") from error

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def revision(self) -> str | None:
        """The revision of its tables; None where there are none yet."""
        with self.read() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def bring_up_to_date(self) -> None:
        """Make or migrate the tables. Raises ConfigurationError for those of a newer lingbi, DatabaseAway otherwise."""
        if self.known_revision() != HEAD:
            self._migrate()

    def known_revision(self) -> str | None:
        """The revision of its tables. Raises ConfigurationError for those of a newer lingbi."""
        found = self.revision()
        if found is not None and found > HEAD:
            raise ConfigurationError(
                f"the accounts' database {self} is of a newer lingbi (its tables are of revision {found}, and this one knows "
                f"them up to {HEAD}); start that version, or name another database in LINGBI_DATABASE_URL"
            )
        return found

    def _migrate(self) -> None:
        from alembic import command  # only here: most starts find everything up to date
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
        with self._translated(), self._migrating() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextlib.contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """A transaction beside which no other one migrates; it waits for one that does."""
        engine = _sqlite(self.url, MIGRATION_S) if self.is_sqlite else self.engine
        try:
            with engine.begin() as connection:
                if not self.is_sqlite:  # SQLite's own lock is held since the transaction began
                    for timeout in ("statement_timeout", "lock_timeout"):
                        connection.execute(sa.text(f"SET LOCAL {timeout} = '{MIGRATION_S}s'"))
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
                yield connection
        finally:
            if engine is not self.engine:
                engine.dispose()

    def keep(self) -> None:
        """Have the disk keep what was committed, even if the machine loses its power. Raises DatabaseAway.

        PostgreSQL does so with each commit; SQLite, as it is set up here, some commits later.
        """
        if self.is_sqlite:
            with self.read() as connection:
                connection.commit()  # not within a transaction
                is_busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)").scalar()
            if is_busy:
                raise DatabaseAway(f"the accounts' database {self} is being read and written without a pause")

    def lock(self, connection: Connection, name: str) -> None:
        """Have others that lock this name wait until this transaction ends, as all that write wait for each other on SQLite."""
        if not self.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def take_time(self, connection: Connection) -> None:
        """Let this transaction rest between its statements for as long as it likes: nobody else uses the database."""
        if not self.is_sqlite:
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this backend's dialect, which knows `on_conflict_do_update`."""
        from sqlalchemy.dialects import postgresql, sqlite

        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


def now_of(connection: Connection) -> float:
    """The database's time, seconds since the epoch: what hosts share goes by it, since one of their clocks may be wrong."""
    if connection.dialect.name == "sqlite":  # all that use it are on this host
        return time.time()
    return connection.execute(sa.select(now_in(connection))).scalar_one()


def now_in(connection: Connection) -> sa.ColumnElement[float]:
    """The same within a statement, which saves one of its own: the time at which the statement came."""
    if connection.dialect.name == "sqlite":
        return sa.literal(time.time(), sa.Double)
    return sa.cast(sa.extract("epoch", sa.func.statement_timestamp()), sa.Double)


class SharedClock:
    """The database's time without asking for it: this host's, and by how much that was off when it was last asked for."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def read(self, connection: Connection) -> float:
        """The database's time, seconds since the epoch."""
        return self.note(now_of(connection))

    def note(self, now: float) -> float:
        """Take in the database's time, which was just read; returns it."""
        self._ahead_s = now - time.time()
        return now

    def now(self) -> float:
        """The database's time, as far as it is known, seconds since the epoch."""
        return time.time() + self._ahead_s


REMEDIES = (
    (
        "password authentication failed|no password supplied",
        "write its user's password into LINGBI_DATABASE_PASSWORD_FILE",
    ),
    ("no pg_hba.conf entry", "let this host in (pg_hba.conf), or correct LINGBI_DATABASE_URL"),
    ('database ".*" does not exist', "make it (createdb), or correct LINGBI_DATABASE_URL"),
    ('role ".*" (does not exist|is not permitted)', "make that user (createuser), or correct LINGBI_DATABASE_URL"),
    ("permission denied", "make its user the owner of the database"),
    ("readonly database", "let this user write the file and its folder, or name another database"),
    ("unable to open database file", "let this user write the folder, or name another one in LINGBI_DATABASE_URL"),
    ("not a database|disk image is malformed", "put the last backup there, or move the file away to begin anew"),
)


def remedy_for(reason: str) -> str:
    """What to do about a database that refuses for this reason; empty where waiting may be enough."""
    return next((remedy for pattern, remedy in REMEDIES if re.search(pattern, reason)), "")


def parse_url(text: str, password: str | None = None) -> URL:
    """A database's URL: sqlite:///FILE or postgresql://USER@HOST[:PORT]/NAME. Raises ConfigurationError."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    backend = url.get_backend_name() if url is not None else ""
    if url is None or backend not in ("sqlite", "postgresql") or (backend == "sqlite" and not url.database):
        raise ConfigurationError(
            "LINGBI_DATABASE_URL is no database's address; give sqlite:///FILE or postgresql://USER@HOST:PORT/NAME, and "
            "the password in LINGBI_DATABASE_PASSWORD_FILE"
        )
    if backend == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
        url = url.set(password=password) if password else url
    return url


def _sqlite(url: URL, patience_s: float = BUSY_S) -> Engine:
    assert url.database
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": patience_s})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # pysqlite would begin transactions by itself, and late
        _use_wal(connection)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("lingbi_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


@tenacity.retry(
    retry=tenacity.retry_if_exception(_is_locked),
    stop=tenacity.stop_after_delay(BUSY_S),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _use_wal(connection: Any) -> None:
    """Have a file use a write-ahead log. SQLite refuses at once, without its patience, where two do so to a new file."""
    connection.execute("PRAGMA journal_mode=WAL")


def _postgresql(url: URL) -> Engine:
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=2,
        pool_timeout=CONNECT_S,
        connect_args={
            "connect_timeout": CONNECT_S,
            "keepalives_idle": UNHEARD_S // 2,
            "keepalives_interval": 1,
            "tcp_user_timeout": UNHEARD_S * 1000,
            "client_encoding": "utf8",
            "options": "-c statement_timeout=10s -c lock_timeout=5s "
            f"-c idle_in_transaction_session_timeout={UNENDED_S}s",
        },
    )
