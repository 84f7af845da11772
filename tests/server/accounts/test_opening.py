"""The accounts' database as a server's settings name it: refused by name, or waited for."""

import contextlib
import logging
import os
import sqlite3
import tempfile

import psycopg
import pytest
import sqlalchemy as sa

from lingbi.accounts.database import HEAD, DatabaseAway
from lingbi.accounts.opening import (
    check_accounts,
    database_at_start,
    folder_of,
    host_of,
    judge_accounts,
    open_database,
)
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings
from tests.postgres import PASSWORD, USER


def settings_of(tmp_path, **others) -> Settings:
    return Settings(state_dir=tmp_path / "state", **others)


def password_in(folder, text: str = PASSWORD):
    file = folder / "password"
    file.write_text(text)
    return file


def test_without_a_setting_it_lies_in_the_state_folder_which_is_closed(tmp_path):
    settings = settings_of(tmp_path)
    check_accounts(settings)
    assert (tmp_path / "state/accounts/accounts.db").exists() and folder_of(settings).stat().st_mode & 0o077 == 0


def test_a_host_keeps_its_name_and_two_never_have_the_same(tmp_path):
    one, other = settings_of(tmp_path), Settings(state_dir=tmp_path / "other")
    assert host_of(one) == host_of(one) != host_of(other) and len(list(folder_of(one).glob("host*"))) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"time_zone": "Mars/Base"}, "LINGBI_TIME_ZONE='Mars/Base' is no time zone; give a name as in Asia/Shanghai"),
        ({"time_zone": "../../etc/passwd"}, "LINGBI_TIME_ZONE="),
        ({"database_url": "mysql://a@b/c"}, "LINGBI_DATABASE_URL is no database's address"),
        ({"database_url": "postgresql://a@b/c", "database_password_file": "/nowhere"}, "LINGBI_DATABASE_PASSWORD_FILE"),
    ],
)
def test_a_bad_setting_stops_a_start_by_its_name(tmp_path, given, told):
    with pytest.raises(ConfigurationError, match=told):
        check_accounts(settings_of(tmp_path, **given))


def test_an_empty_password_is_refused(tmp_path):
    given = {"database_url": "postgresql://a@b/c", "database_password_file": password_in(tmp_path, "\n")}
    with pytest.raises(ConfigurationError, match="is empty; write the password into it"):
        check_accounts(settings_of(tmp_path, **given))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: (url, "open sesame"), "password authentication failed.*; write its user's password into"),
        (lambda url: (f"{url}_not", PASSWORD), 'database ".*_not" does not exist; make it .createdb.'),
        (lambda url: (url.replace(USER, "nobody", 1), PASSWORD), "password authentication failed"),
    ],
)
def test_what_postgresql_refuses_stops_a_start(tmp_path, postgres, change, told):
    url, password = change(postgres.address)
    given = {"database_url": url, "database_password_file": password_in(tmp_path, password)}
    with pytest.raises(ConfigurationError, match=told) as caught:
        check_accounts(settings_of(tmp_path, **given))
    assert "sesame" not in str(caught.value)


def test_a_user_who_may_make_no_tables_is_told_so(tmp_path, postgres):
    postgres.server.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    try:
        url = postgres.address.replace(USER, "guest", 1)
        given = {"database_url": url, "database_password_file": password_in(tmp_path, "guest")}
        with pytest.raises(ConfigurationError, match="permission denied for schema public; make its user the owner"):
            check_accounts(settings_of(tmp_path, **given))
    finally:
        postgres.server.run("DROP ROLE guest")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_newer_schema_stops_a_start(tmp_path, request, kind):
    given = {}
    if kind == "postgresql":
        fresh = request.getfixturevalue("postgres")
        given = {"database_url": fresh.address, "database_password_file": password_in(tmp_path)}
    settings = settings_of(tmp_path, **given)
    with open_database(settings).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="is of a newer lingbi"):
        check_accounts(settings)


def test_a_server_that_is_away_stops_no_start_but_a_command(tmp_path, caplog):
    settings = settings_of(tmp_path, database_url="postgresql://lingbi@127.0.0.1:1/lingbi")
    database_at_start(settings)
    (line,) = (record.message for record in caplog.records if record.levelno == logging.ERROR)
    assert "Connection refused" in line and "keys are those that this host knows, and it is tried again" in line
    with pytest.raises(DatabaseAway):
        open_database(settings)


def test_one_that_another_has_locked_is_waited_for(tmp_path, monkeypatch):
    settings = settings_of(tmp_path)
    open_database(settings).engine.dispose()
    monkeypatch.setattr("lingbi.accounts.database.BUSY_S", 0.1)
    file = folder_of(settings) / "accounts.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseAway, match="locked"), database_at_start(settings).begin():
            pass


def test_a_full_disk_is_said_and_waited_for(tmp_path):
    database = open_database(settings_of(tmp_path))
    with pytest.raises(DatabaseAway, match="full"), database.begin() as connection:
        pages = connection.execute(sa.text("PRAGMA page_count")).scalar_one()
        connection.execute(sa.text(f"PRAGMA max_page_count = {pages}"))
        for number in range(200):
            values = {"name": f"{number}", "note": "x" * 500}
            connection.execute(sa.text("INSERT INTO groups (name, note) VALUES (:name, :note)"), values)


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here, to whom modes mean something")
def test_a_file_that_is_only_readable_stops_a_start():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        url = f"sqlite:///{folder}/accounts.db"
        settings = Settings(database_url=url)
        open_database(settings).engine.dispose()
        with contextlib.closing(sqlite3.connect(f"{folder}/accounts.db")) as connection:
            connection.execute("DELETE FROM alembic_version")
            connection.commit()
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigurationError, match="let this user write"):
                check_accounts(settings)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_postgresql_that_only_reads_is_said_and_waited_for(tmp_path, postgres, caplog, is_new):
    """As a standby does until it is promoted."""
    settings = settings_of(tmp_path, database_url=postgres.address, database_password_file=password_in(tmp_path))
    if not is_new:
        open_database(settings).engine.dispose()
    postgres.server.run(f"ALTER DATABASE {postgres.name} SET default_transaction_read_only = on")
    database = database_at_start(settings)
    assert ("read-only transaction; keys are those that this host knows" in caplog.text) == is_new
    with pytest.raises(DatabaseAway, match="cannot execute .* in a read-only transaction"):
        database.bring_up_to_date()
        with database.begin() as connection:
            connection.execute(sa.text("DELETE FROM groups"))
    database.engine.dispose()
    postgres.server.run(f"ALTER DATABASE {postgres.name} SET default_transaction_read_only = off")
    open_database(settings).engine.dispose()


def test_a_check_says_what_a_start_would_find_and_changes_nothing(tmp_path, postgres):
    settings = settings_of(tmp_path)
    assert judge_accounts(settings) == "no database yet; the start makes one"
    assert not (folder_of(settings) / "accounts.db").exists()
    open_database(settings).engine.dispose()
    assert f"tables of revision {HEAD}" in judge_accounts(settings)
    given = {"database_url": postgres.address, "database_password_file": password_in(tmp_path)}
    assert "without tables yet" in judge_accounts(settings_of(tmp_path, **given))
    assert "without tables yet" in judge_accounts(settings_of(tmp_path, **given))
    away = settings_of(tmp_path, database_url="postgresql://lingbi@127.0.0.1:1/lingbi")
    assert "a start would wait for it" in judge_accounts(away)
    wrong = given | {"database_password_file": password_in(tmp_path, "open sesame")}
    with pytest.raises(ConfigurationError, match="password authentication failed"):
        judge_accounts(settings_of(tmp_path, **wrong))


def test_the_real_password_opens_it(tmp_path, postgres):
    given = {"database_url": postgres.address, "database_password_file": password_in(tmp_path)}
    check_accounts(settings_of(tmp_path, **given))
    with psycopg.connect(postgres.address, password=PASSWORD) as connection:
        assert connection.execute("SELECT revision FROM changes").fetchone() == (0,)
