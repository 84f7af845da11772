"""The real PostgreSQL of Debian's package, for tests of the accounts' database; a plugin of tests/conftest.py.

`postgres` is a fresh database of it, `any_database` that and SQLite in turn; both are the arguments of `Database(…)`'s URL;
`database` is that of `any_database`, with its tables.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.launch.supervision import wait_until
from tests import conftest, debian

USER, PASSWORD = "lingbi", "wine-dark sea: 7%"  # a password with what a URL must write in another way
PROGRAMS = Path("/usr/lib/postgresql")  # below it a folder for each version that is installed
START_S = 30
QUICK = (
    "fsync=off",
    "full_page_writes=off",
)  # what only a machine's own fall could harm; a killed server loses nothing


class Server:
    """One PostgreSQL in a temporary folder, on a unix socket and on a port of this machine; nobody else's."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="lingbi-postgres-"))  # a socket's path must be short
        self.port = conftest.free_port()
        self.numbers = itertools.count(1)  # of its databases
        self.process: subprocess.Popen | None = None
        # PostgreSQL refuses to run as root, and Debian's package has made a user for it.
        self.owner = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.owner:
            shutil.chown(self.folder, "postgres", "postgres")
        self._make()

    def _make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        options = ["--username", USER, "--pwfile", str(secret), "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        command = [str(self.programs / "initdb"), "--pgdata", str(self.data), *options]
        done = subprocess.run(command, text=True, capture_output=True, cwd=self.folder, **self.owner)
        assert done.returncode == 0, done.stderr

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start it, unless it runs; returns when it answers."""
        if self.process and self.process.poll() is None:
            return
        command = [str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.folder), "-p", str(self.port)]
        options = itertools.chain.from_iterable(("-c", option) for option in ("listen_addresses=127.0.0.1", *QUICK))
        assert wait_until(lambda: self._begins([*command, *options]), START_S), self.log.read_text()

    def _begins(self, command: list[str]) -> bool:
        """Whether it answers; begun again if it has ended, since children of a killed one still hold its memory."""
        if self.process is None or self.process.poll() is not None:
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    command, stderr=log, stdout=log, cwd=self.folder, start_new_session=True, **self.owner
                )
        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once, and all connections with it, in good order."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a machine without power does, with its children, of which one might answer once more on its own."""
        orphans = children(self.process.pid) if self.process else []
        self._end(signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(START_S)
        self.process = None

    @contextlib.contextmanager
    def silent(self):
        """Stop its processes where they are: connections stay open, and nothing is answered, as over a cut cable."""
        stopped = [self.process.pid, *children(self.process.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def run(self, statement: str, database: str = "postgres") -> None:
        """One statement outside a transaction, as the owner of everything."""
        where = f"host={self.folder} port={self.port} user={USER} connect_timeout=3 dbname={database}"
        with psycopg.connect(where, password=PASSWORD, autocommit=True) as connection:
            connection.execute(statement)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class Fresh:
    """A database that one test has for itself."""

    server: Server
    name: str
    password: str = PASSWORD

    @property
    def address(self) -> str:
        """For LINGBI_DATABASE_URL, without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.server.port}/{self.name}"

    @property
    def socket_address(self) -> str:
        return f"postgresql://{USER}@/{self.name}?host={self.server.folder}&port={self.server.port}"

    @property
    def url(self):
        return parse_url(self.address, self.password)


def children(pid: int) -> list[int]:
    """The process's children now."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def installed() -> Path | None:
    """The folder of the newest PostgreSQL's programs that is here."""
    found = [folder / "bin" for folder in PROGRAMS.glob("*") if (folder / "bin/initdb").exists()]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


@pytest.fixture(scope="session")
def postgres_server():
    """A server that runs; installed where it is missing. A test that stops or kills it need not start it again."""
    debian.ensure("postgresql", has=installed)
    server = Server(installed())
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server):
    """A fresh database: {.url, .address, .password, .server}."""
    postgres_server.start()
    fresh = Fresh(postgres_server, f"test_{next(postgres_server.numbers)}")
    postgres_server.run(f"CREATE DATABASE {fresh.name}")
    yield fresh
    postgres_server.start()
    postgres_server.run(f"DROP DATABASE {fresh.name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request, tmp_path):
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return parse_url(f"sqlite:///{tmp_path}/accounts/accounts.db")
    return request.getfixturevalue("postgres").url


@pytest.fixture
def database(any_database):
    """The accounts' database with its tables, of each kind in turn."""
    made = Database(any_database)
    made.bring_up_to_date()
    yield made
    made.engine.dispose()
