"""All accounts moved from SQLite to PostgreSQL and back: every row and every upload, in one piece, and new ones behind them."""

import random
import time
import tracemalloc

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.tables import counts, keys, metadata, usage_hours
from lingbi.batch import moving
from lingbi.batch.moving import CONTENTS, PASSING, move
from lingbi.batch.storage import PART_BYTES
from lingbi.batch.store import Store, store_of
from lingbi.batch.tables import file_parts
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings
from tests.conftest import lingbi
from tests.server.batch.holdings import answered, claim, submit, upload

ROWS = 2500  # more than are copied at once
UPLOAD = random.Random(1).randbytes(2 * PART_BYTES + 5)
OWNER = "张三"


def store_at(folder, url=None) -> Store:
    """A store whose files are in a state folder, unless its database is PostgreSQL."""
    database = Database(url or parse_url(f"sqlite:///{folder}/accounts/accounts.db"))
    return store_of(Settings(state_dir=folder), database)


@pytest.fixture
def full(tmp_path):
    """SQLite with rows in the tables that keep something for long, and an upload in the folder beside it."""
    made = store_at(tmp_path / "from")
    made.database.bring_up_to_date()
    each = {column.name: 7 for column in counts()}
    hours = [{"hour": hour, "key": OWNER, "model": "vl-7b", "status": 200} | each for hour in range(ROWS)]
    with made.database.begin() as connection:
        connection.execute(keys.insert(), [{"name": f"key {number}", "created_at": 1.5} for number in range(3)])
        connection.execute(sa.update(metadata.tables["changes"]).values(revision=41))
        connection.execute(usage_hours.insert(), hours)
    file_id = upload(made, OWNER, UPLOAD)
    answered(made, OWNER, file_id, "it is red")
    submit(made, OWNER, file_id, ROWS)
    assert len(claim(made, 2)) == 2
    yield made
    made.database.engine.dispose()


@pytest.fixture
def target(postgres, tmp_path):
    """PostgreSQL that nobody has used."""
    made = store_at(tmp_path / "to", postgres.url)
    yield made
    made.database.engine.dispose()


@pytest.fixture
def again(tmp_path):
    """Another SQLite with a folder of its own."""
    made = store_at(tmp_path / "again")
    yield made
    made.database.engine.dispose()


def rows(store: Store) -> dict:
    with store.database.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table)).all()), key=repr)
            for table in metadata.sorted_tables
            if table not in (*PASSING, file_parts)
        }


def contents(store: Store) -> dict:
    """{id: content} of the files that were uploaded."""
    with store.database.read() as connection:
        names = connection.execute(sa.text("SELECT id FROM files WHERE kind = 'stored'")).scalars().all()
    return {name: store.storage.open(name).read() for name in names}


def test_all_goes_to_postgresql_and_back(full, target, again):
    copied = move(full, target)
    assert (copied["usage_hours"], copied["keys"], copied["batch_lines"]) == (ROWS, 3, ROWS + 1)
    assert (copied["files"], copied["batches"], copied[CONTENTS]) == (2, 2, 1)
    assert rows(target) == rows(full) and list(contents(target).values()) == [UPLOAD]
    assert move(target, again) == copied and rows(again) == rows(full) and contents(again) == contents(full)
    for store in (target, again):  # a new key's number is free
        with store.database.begin() as connection:
            connection.execute(keys.insert().values(name="new", created_at=2.0))


def test_all_goes_from_one_folder_to_another(full, again):
    move(full, again)
    assert rows(again) == rows(full) and list(contents(again).values()) == [UPLOAD]


def test_every_table_is_moved_or_known_to_pass(full):
    """Also one that somebody adds: it belongs to the metadata, which is walked."""
    with full.database.read() as connection:
        assert set(sa.inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_one_side_may_wait_long_for_the_other(full, target, again, monkeypatch):
    """Longer than the workers' transactions may rest."""
    monkeypatch.setattr("lingbi.accounts.database.UNENDED_S", 1)
    copy = moving._copy

    def slow(table, there, here) -> int:
        copied = copy(table, there, here)
        time.sleep(1.5 if table is usage_hours else 0)
        return copied

    monkeypatch.setattr(moving, "_copy", slow)
    assert move(full, target) == move(target, again)


def test_what_is_in_use_is_not_moved_into_and_a_fault_leaves_nothing(full, target, monkeypatch):
    target.database.bring_up_to_date()
    empty = rows(target)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(moving, "_count_on", lambda connection: _fail())
        move(full, target)
    assert rows(target) == empty
    with target.database.read() as connection:
        assert not connection.execute(sa.select(file_parts.c.part)).all()
    move(full, target)
    with pytest.raises(ConfigurationError, match=r"\*\*\*@.* holds \w+ already; move into one that no server has used"):
        move(full, target)


def test_a_fault_leaves_no_file_in_a_folder(full, again, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("lingbi.batch.storage._FolderWriter.finish", lambda writer: _fail())
        move(full, again)
    assert not list(again.storage.path.iterdir()) and not rows(again)["files"]
    move(full, again)
    assert list(contents(again).values()) == [UPLOAD]


def test_one_that_holds_a_batch_only_is_not_moved_into(full, again):
    again.database.bring_up_to_date()
    submit(again, OWNER, "file-1")
    with pytest.raises(ConfigurationError, match="holds batches already"):
        move(full, again)


def test_a_content_that_is_missing_moves_nothing_unless_that_is_wished(full, again):
    (missing,) = contents(full)
    full.storage.remove(missing)
    with pytest.raises(ConfigurationError, match=rf"1 uploaded files .*{missing}.* not in .*from/files; .*--files"):
        move(full, again)
    assert not rows(again)["files"]
    copied = move(full, again, is_missing_ok=True)
    assert copied[CONTENTS] == 0 and rows(again) == rows(full)


def test_files_that_are_in_one_folder_for_both_stay_there(full, tmp_path):
    database = Database(parse_url(f"sqlite:///{tmp_path}/other.db"))
    shared = store_of(Settings(state_dir=tmp_path, files_dir=full.storage.path), database)
    assert move(full, shared)[CONTENTS] == 0 and list(contents(shared).values()) == [UPLOAD]
    database.engine.dispose()


def test_an_upload_is_moved_piece_by_piece(full, again):
    upload(full, OWNER, b"x" * (30 << 20))
    tracemalloc.start()
    move(full, again)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{peak >> 20} MiB at the peak")
    assert peak < 10 << 20


def _fail() -> None:
    raise RuntimeError


def test_the_command_moves_batches_and_uploads(full, target, postgres, tmp_path):
    (tmp_path / "password").write_text(postgres.password)
    given = {"LINGBI_DATABASE_URL": postgres.address, "LINGBI_DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    refused = lingbi("usage", "move", "--from", tmp_path / "none.db", state_dir=tmp_path / "state", **given)
    assert refused.returncode == 2 and "none.db: there is no such file" in refused.stderr
    file = tmp_path / "from/accounts/accounts.db"
    done = lingbi("usage", "move", "--from", file, state_dir=tmp_path / "state", **given)
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} usage_hours" in done.stdout and postgres.password not in done.stdout + done.stderr
    for count, name in ((2, "files"), (2, "batches"), (ROWS + 1, "batch_lines"), (1, CONTENTS)):
        assert f" {count} {name}" in done.stdout
    assert rows(target) == rows(full) and list(contents(target).values()) == [UPLOAD]


def test_the_command_says_where_it_looked_for_uploads(full, tmp_path):
    file, elsewhere = tmp_path / "from/accounts/accounts.db", tmp_path / "elsewhere"
    full.storage.path.rename(elsewhere)
    state = tmp_path / "state"
    refused = lingbi("usage", "move", "--from", file, state_dir=state)
    assert (
        refused.returncode == 2 and f"not in {full.storage.path}" in refused.stderr and not (state / "files").exists()
    )
    done = lingbi("usage", "move", "--from", file, "--files", elsewhere, state_dir=state)
    assert done.returncode == 0, done.stderr
    moved = store_at(state)
    assert rows(moved) == rows(full) and list(contents(moved).values()) == [UPLOAD]
    moved.database.engine.dispose()
