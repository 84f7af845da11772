"""Accounts moved from SQLite to PostgreSQL and back: every row of every table, in one piece, and new ones behind them."""

import time

import pytest
import sqlalchemy as sa

from lingbi.accounts import moving
from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.moving import PASSING, move
from lingbi.accounts.tables import counts, keys, metadata, usage_hours
from lingbi.errors import ConfigurationError
from tests.conftest import lingbi

ROWS = 2500  # more than are copied at once


@pytest.fixture
def full(tmp_path):
    """A SQLite database with rows in the tables that keep something for long."""
    made = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    made.bring_up_to_date()
    each = {column.name: 7 for column in counts()}
    hours = [{"hour": hour, "key": "张三", "model": "vl-7b", "status": 200} | each for hour in range(ROWS)]
    with made.begin() as connection:
        connection.execute(keys.insert(), [{"name": f"key {number}", "created_at": 1.5} for number in range(3)])
        connection.execute(sa.update(metadata.tables["changes"]).values(revision=41))
        connection.execute(usage_hours.insert(), hours)
    return made


def rows(database: Database) -> dict:
    with database.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table)).all()), key=repr)
            for table in metadata.sorted_tables
            if table.name not in PASSING
        }


def test_all_goes_to_postgresql_and_back(full, postgres, tmp_path):
    target, again = Database(postgres.url), Database(parse_url(f"sqlite:///{tmp_path}/again.db"))
    copied = move(full, target)
    assert (copied["usage_hours"], copied["keys"]) == (ROWS, 3) and rows(target) == rows(full)
    assert move(target, again) == copied and rows(again) == rows(full)
    for database in (target, again):  # a new key's number is free
        with database.begin() as connection:
            connection.execute(keys.insert().values(name="new", created_at=2.0))
    target.engine.dispose()


def test_one_side_may_wait_long_for_the_other(full, postgres, tmp_path, monkeypatch):
    """Longer than the workers' transactions may rest."""
    monkeypatch.setattr("lingbi.accounts.database.UNENDED_S", 1)
    copy = moving._copy

    def slow(table, there, here) -> int:
        copied = copy(table, there, here)
        time.sleep(1.5 if table is usage_hours else 0)
        return copied

    monkeypatch.setattr(moving, "_copy", slow)
    target, again = Database(postgres.url), Database(parse_url(f"sqlite:///{tmp_path}/again.db"))
    assert move(full, target) == move(target, again)
    target.engine.dispose()


def test_what_is_in_use_is_not_moved_into_and_a_fault_leaves_nothing(full, postgres, monkeypatch):
    target = Database(postgres.url)
    target.bring_up_to_date()
    empty = rows(target)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("lingbi.accounts.moving._count_on", lambda connection: _fail())
        move(full, target)
    assert rows(target) == empty
    move(full, target)
    with pytest.raises(ConfigurationError, match=r"\*\*\*@.* holds \w+ already; move into one that no server has used"):
        move(full, target)
    target.engine.dispose()


def _fail() -> None:
    raise RuntimeError


def test_the_command_names_what_it_needs(full, postgres, tmp_path):
    (tmp_path / "password").write_text(postgres.password)
    given = {"LINGBI_DATABASE_URL": postgres.address, "LINGBI_DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    refused = lingbi("usage", "move", "--from", tmp_path / "none.db", state_dir=tmp_path / "state", **given)
    assert refused.returncode == 2 and "none.db: there is no such file" in refused.stderr
    done = lingbi("usage", "move", "--from", tmp_path / "accounts.db", state_dir=tmp_path / "state", **given)
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} usage_hours" in done.stdout and postgres.password not in done.stdout + done.stderr
