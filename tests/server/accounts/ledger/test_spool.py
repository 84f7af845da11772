"""A disk that is full for real: what could be written only in part is taken back, waits in memory, and is counted once."""

import contextlib
import resource

import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts
from lingbi.accounts.ledger.journal import in_folder
from tests.server.accounts.ledger.parts import Request, kill, ledger_in, sums


@contextlib.contextmanager
def no_room_behind(size: int):
    """Files of this process end at a size, as on a disk that is full: a write fills what is left, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 30])
def test_what_a_full_disk_refused_is_counted_once_there_is_room(tmp_path, caplog, room):
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    database.bring_up_to_date()
    ledger = ledger_in(tmp_path, database)
    spool, request = ledger.spool, Request("long", has=Counts(0, 10, 0, 5), in_all=Counts(0, 10, 0, 5))
    use = spool.open(request)
    use.run()
    spool.tell()
    [file] = in_folder(tmp_path / "journals")
    before = file.read_bytes()
    request.has = request.in_all = Counts(0, 10, 0, 9)
    with no_room_behind(len(before) + room):
        spool.tell()
        use.end(200)
        for _ in range(3):
            spool.open(Request("short", in_all=Counts(0, 7, 0, 1))).end(200)
        assert file.read_bytes() == before and spool.waiting == 3  # one line, one sum, and the line that is written
    assert "usage cannot be written and is summed in memory" in caplog.text
    spool.tell()
    ledger.count()
    assert sums(database) == {("long", 200): Counts(1, 10, 0, 9), ("short", 200): Counts(3, 21, 0, 3)}
    assert "is written to" in caplog.text and spool.waiting == 0
    kill(ledger)
    database.engine.dispose()
