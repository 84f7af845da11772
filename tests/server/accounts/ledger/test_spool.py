"""A disk that is full for real: what could be written only in part is taken back, waits in memory, and is counted once."""

import contextlib
import errno
import resource

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import parse_url
from lingbi.accounts.entries import Counts
from lingbi.accounts.ledger.journal import Journal, in_folder
from lingbi.accounts.tables import journals
from tests.server.accounts.ledger.parts import FailingDatabase, Killed, Request, kill, ledger_in, sums

AGAIN = "is written to"


@pytest.fixture
def database(tmp_path):
    made = FailingDatabase(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    made.bring_up_to_date()
    yield made
    made.engine.dispose()


def refuse(journal, lines):
    raise OSError(errno.ENOSPC, "No space left on device")


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
def test_what_a_full_disk_refused_is_counted_once_there_is_room(tmp_path, caplog, database, room):
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
    assert AGAIN in caplog.text and spool.waiting == 0
    kill(ledger)


@pytest.mark.parametrize("why", ["the disk is full", "journals are too large", "they were before this worker began"])
def test_an_orderly_stop_counts_what_only_memory_holds(tmp_path, monkeypatch, caplog, database, why):
    is_late = why != "they were before this worker began"
    ledger = ledger_in(tmp_path, database, **({} if is_late else {"most_bytes": -1}))
    ledger.start()
    spool, uses = ledger.spool, {}
    for name in ("ended", "running"):
        uses[name] = spool.open(Request(name, has=Counts(0, 10, 0, 5), in_all=Counts(0, 10, 0, 9)))
        uses[name].run()
    spool.tell()
    if why == "the disk is full":
        monkeypatch.setattr(Journal, "append", refuse)
    spool.most_bytes = spool.most_bytes if why == "the disk is full" else -1
    spool.tell()
    uses["ended"].end(200)
    for _ in range(1000):
        spool.open(Request("short", in_all=Counts(0, 7, 0, 1))).end(200)
    ledger.stop()
    expected = {("ended", 200): Counts(1, 10, 0, 9), ("short", 200): Counts(1000, 7000, 0, 1000)}
    expected |= {("running", 502): Counts(1, 10, 0, 5)} if is_late else {}
    assert sums(database) == expected
    assert not in_folder(tmp_path / "journals") and "lost" not in caplog.text
    with database.read() as connection:
        assert not connection.execute(sa.select(journals)).all()


@pytest.mark.parametrize("fault, counted", [("kill before", (502, 5)), ("kill after", (200, 9))])
def test_a_kill_while_what_only_memory_holds_is_counted_doubles_nothing(
    tmp_path, monkeypatch, database, fault, counted
):
    ledger = ledger_in(tmp_path, database)
    long = ledger.spool.open(Request("long", has=Counts(0, 10, 0, 5), in_all=Counts(0, 10, 0, 9)))
    long.run()
    ledger.spool.tell()
    ledger.count()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", refuse)
        long.end(200)
        database.fault = fault
        with pytest.raises(Killed):
            ledger.count_rest()
    kill(ledger)
    after = ledger_in(tmp_path, database)
    after.count()
    status, tokens = counted
    assert sums(database) == {("long", status): Counts(1, 10, 0, tokens)}
    assert len(in_folder(tmp_path / "journals")) == 1  # of the new worker
    kill(after)


def test_what_neither_disk_nor_database_takes_is_in_the_log(tmp_path, monkeypatch, caplog, database):
    ledger = ledger_in(tmp_path, database)
    ledger.start()
    long = ledger.spool.open(Request("long", has=Counts(0, 10, 0, 5), in_all=Counts(0, 10, 0, 9)))
    long.run()
    ledger.spool.tell()
    monkeypatch.setattr(Journal, "append", refuse)
    database.fault = "away"
    long.end(200)
    ledger.spool.open(Request("short", in_all=Counts(0, 7, 0, 1))).end(200)
    ledger.stop()
    lost = [record.getMessage() for record in caplog.records if "usage is lost" in record.getMessage()]
    assert (
        len(lost) == 2
        and '"long","model",200,1,0,0,4,0,0]' in lost[0]
        and '"short","model",200,1,7,0,1,0,0]' in lost[1]
    )
    monkeypatch.undo()
    database.fault = None
    after = ledger_in(tmp_path, database)
    after.count()
    assert sums(database) == {("long", 502): Counts(1, 10, 0, 5)}  # what the disk had
    kill(after)


def test_a_disk_that_stays_full_is_told_once_and_that_it_has_room_only_when_it_does(
    tmp_path, monkeypatch, caplog, database
):
    ledger = ledger_in(tmp_path, database)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", refuse)
        ledger.spool.open(Request("short")).end(200)
        for _ in range(3):
            ledger.spool.tell()
    assert caplog.text.count("usage cannot be written") == 1 and AGAIN not in caplog.text
    ledger.spool.tell()
    assert caplog.text.count(AGAIN) == 1 and ledger.spool.waiting == 1
    kill(ledger)
