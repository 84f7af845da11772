"""The accounts' database on SQLite and on a real PostgreSQL: made, migrated, refused, away."""

import contextlib
import multiprocessing
import os
import sqlite3
import tempfile
import threading
import time

import pytest
import sqlalchemy as sa
from alembic import command

import lingbi.batch.tables  # noqa: F401 – its tables are of the same metadata
from lingbi.accounts.database import BUSY_S, HEAD, MIGRATION_LOCK, Database, DatabaseAway, parse_url
from lingbi.accounts.tables import groups, metadata
from lingbi.errors import ConfigurationError


def write(database: Database, name: str) -> None:
    with database.begin() as connection:
        connection.execute(groups.insert().values(name=name))


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.select(groups.c.name).order_by(groups.c.name)).scalars())


def test_is_made_anew_with_every_table_and_column(database):
    with database.read() as connection:
        inspector = sa.inspect(connection)
        found = {
            name: {column["name"] for column in inspector.get_columns(name)} for name in inspector.get_table_names()
        }
    assert found.pop("alembic_version") == {"version_num"}
    assert found == {table.name: set(table.columns.keys()) for table in metadata.sorted_tables}
    assert database.revision() == HEAD


def test_an_up_to_date_one_keeps_what_it_holds(database):
    write(database, "students")
    database.bring_up_to_date()
    assert names(database) == ["students"]


def test_what_fails_half_way_is_not_there(database):
    with pytest.raises(RuntimeError), database.begin() as connection:
        connection.execute(groups.insert().values(name="students"))
        raise RuntimeError
    assert names(database) == []


def test_a_newer_schema_is_refused_by_name(database):
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=f"newer lingbi .*9999.*{HEAD}.*LINGBI_DATABASE_URL"):
        database.bring_up_to_date()


def test_an_older_one_is_migrated_and_keeps_what_it_holds(any_database, monkeypatch):
    database = Database(any_database)
    with monkeypatch.context() as patch:
        upgrade = command.upgrade
        patch.setattr(command, "upgrade", lambda config, revision: upgrade(config, "0001"))
        database.bring_up_to_date()
    assert database.revision() == "0001" != HEAD
    write(database, "students")
    database.bring_up_to_date()
    assert (database.revision(), names(database)) == (HEAD, ["students"])
    with database.read() as connection:
        assert set(sa.inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
    database.engine.dispose()


def test_several_processes_may_migrate_at_once(any_database):
    """Each finds an empty database, as the workers of several hosts may; all succeed, and it is made once."""
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(4)

    def migrate() -> None:
        together.wait(30)
        Database(any_database).bring_up_to_date()

    several = [fork.Process(target=migrate) for _ in range(4)]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
    assert [process.exitcode for process in several] == [0] * 4
    assert Database(any_database).revision() == HEAD


def test_who_migrates_waits_for_another_that_takes_its_time(any_database):
    holds = threading.Event()

    def hold() -> None:
        database = Database(any_database)
        with database.begin() as connection:
            if not database.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            holds.set()
            time.sleep(BUSY_S + 1)

    other = threading.Thread(target=hold)
    other.start()
    assert holds.wait(30)
    Database(any_database).bring_up_to_date()
    other.join()
    assert Database(any_database).revision() == HEAD


def test_a_password_is_shown_to_nobody(postgres):
    wrong = Database(parse_url(postgres.address, "open sesame"))
    with pytest.raises(DatabaseAway, match="password authentication failed") as caught:
        wrong.bring_up_to_date()
    assert "sesame" not in f"{caught.value}{wrong}"


def test_is_reached_by_a_unix_socket_too(postgres):
    Database(parse_url(postgres.socket_address, postgres.password)).bring_up_to_date()
    assert Database(postgres.url).revision() == HEAD


def test_a_server_that_went_away_and_came_back(postgres):
    database = Database(postgres.url)
    database.bring_up_to_date()
    for end in (postgres.server.stop, postgres.server.kill):
        end()
        with pytest.raises(DatabaseAway, match=r"postgresql\+psycopg://lingbi:\*\*\*@"):
            names(database)
        postgres.server.start()
        write(database, end.__name__)
    assert names(database) == ["kill", "stop"]
    database.engine.dispose()


def test_a_row_that_another_holds_is_waited_for_within_a_bound(postgres):
    database = Database(postgres.url)
    database.bring_up_to_date()
    with pytest.raises(DatabaseAway, match="lock timeout"), database.begin() as one:
        one.execute(groups.insert().values(name="students"))
        with database.begin() as other:
            other.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
            other.execute(groups.insert().values(name="students"))
    database.engine.dispose()


def test_a_database_that_another_has_locked(tmp_path, monkeypatch):
    monkeypatch.setattr("lingbi.accounts.database.BUSY_S", 0.1)
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    database.bring_up_to_date()
    with contextlib.closing(sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseAway, match="locked"):
            write(database, "students")
        assert names(database) == []  # who only reads is not held up
        other.execute("ROLLBACK")
    write(database, "students")
    assert names(database) == ["students"]


def test_a_reader_does_not_wait_for_a_writer(database):
    """Reports are read while workers write."""
    writing, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.begin() as connection:
            connection.execute(groups.insert().values(name="students"))
            writing.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert writing.wait(10)
        assert names(database) == []
    finally:
        done.set()
        thread.join()
    assert names(database) == ["students"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here, to whom modes mean something")
def test_a_file_that_is_only_readable():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # pytest's own folder is closed to others
        made = Database(parse_url(f"sqlite:///{folder}/accounts.db"))
        made.bring_up_to_date()
        made.engine.dispose()
        os.seteuid(65534)
        try:
            with pytest.raises(DatabaseAway, match="readonly|read-only|unable to open"):
                write(Database(made.url), "students")
        finally:
            os.seteuid(0)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "accounts.db").write_text("no database at all\n" * 100)
    with pytest.raises(DatabaseAway, match="not a database"):
        Database(parse_url(f"sqlite:///{tmp_path}/accounts.db")).bring_up_to_date()


@pytest.mark.parametrize(
    "text", ["", "accounts.db", "mysql://root@host/lingbi", "sqlite://", "postgresql://a:b:c@:x/d", "%"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigurationError, match="LINGBI_DATABASE_URL is no database's address"):
        parse_url(text)
