"""Contents of files, in a folder and in the database: the same bytes come back, from any place of them."""

import hashlib
import random

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from lingbi.batch.storage import AT_ONCE, PART_BYTES, Folder, Parts
from lingbi.batch.tables import file_parts


@pytest.fixture(params=["folder", "database"])
def storage(request, tmp_path):
    if request.param == "folder":
        yield Folder(tmp_path / "files")
        return
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    database.bring_up_to_date()
    yield Parts(database)
    database.engine.dispose()


def store(storage, content: bytes, piece: int = 300_000) -> None:
    writer = storage.begin("file-1")
    for start in range(0, len(content), piece):
        writer.write(content[start : start + piece])
    writer.finish()


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 77])
def test_what_was_stored_comes_back(storage, size):
    content = random.Random(size).randbytes(size)
    store(storage, content)
    with storage.open("file-1") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()
    for place in (0, size // 2, max(0, size - 10), max(0, size - PART_BYTES - 3)):
        with storage.open("file-1") as file:
            file.seek(place)
            assert file.read(1000) == content[place : place + 1000]


def test_lines_are_read_over_the_ends_of_parts(storage):
    lines = [bytes([97 + number % 26]) * (number * 991 % 70_000) + b"\n" for number in range(200)]
    store(storage, b"".join(lines))
    with storage.open("file-1") as file:
        assert file.readlines() == lines


def test_what_is_not_finished_or_removed_is_not_there(storage):
    writer = storage.begin("file-1")
    writer.write(b"half")
    writer.discard()
    with pytest.raises(FileNotFoundError):
        storage.open("file-1")
    store(storage, b"whole")
    storage.remove("file-1")
    storage.remove("file-1")
    with pytest.raises(FileNotFoundError):
        storage.open("file-1")


def test_a_large_content_is_removed_a_few_parts_at_a_time(database):
    """A statement that lasts too long is ended by PostgreSQL, and holds up everybody else on SQLite."""
    parts, removed = Parts(database), []
    with database.begin() as connection:
        rows = [{"file_id": "file-1", "part": part, "content": b"x"} for part in range(2 * AT_ONCE + 1)]
        connection.execute(sa.insert(file_parts), rows + [{"file_id": "file-2", "part": 0, "content": b"x"}])

    def note(connection, cursor, statement, parameters, context, is_many):
        if statement.startswith("DELETE"):
            removed.append(cursor.rowcount)

    sa.event.listen(database.engine, "after_cursor_execute", note)
    parts.remove("file-1")
    assert sum(removed) == 2 * AT_ONCE + 1 and max(removed) <= AT_ONCE
    with pytest.raises(FileNotFoundError):
        parts.open("file-1")
    parts.open("file-2").close()
