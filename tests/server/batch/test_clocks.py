"""Hosts that share files and batches, one with a wrong clock: it ends nothing of the others, and nothing of its own early."""

import asyncio
import contextlib
import time

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database
from lingbi.accounts.facts import KeyFacts
from lingbi.batch import batches, claims, files
from lingbi.batch.store import store_of
from lingbi.batch.tables import batch_lines
from lingbi.http.batch.runner import Runner
from tests.server.batch.test_claims import claim, counts, make

FILE = {"filename": "x", "purpose": "batch", "bytes": 5}


@pytest.fixture
def database(postgres):
    made = Database(postgres.url)
    made.bring_up_to_date()
    yield made
    made.engine.dispose()


def sign_on(database, worker):
    with database.begin() as connection:
        claims.sign_on(connection, database, worker, "demo")
        return claims.free_lost(connection)


def test_workers_of_both_hosts_live_and_keep_their_lines(database, wrong_host):
    make(database, count=4)
    sign_on(database, "right")
    assert len(claim(database, "right", 2)) == 2
    with wrong_host():
        assert sign_on(database, "wrong") == 0 and len(claim(database, "wrong", 2)) == 2
    assert sign_on(database, "right") == 0
    for host in (contextlib.nullcontext, wrong_host):
        with host(), database.read() as connection:
            assert set(claims.alive(connection)) == {"right", "wrong"}


def test_files_and_uploads_of_both_hosts_stay(database, wrong_host):
    for name, host in (("right", contextlib.nullcontext), ("wrong", wrong_host)):
        with host(), database.begin() as connection:
            files.begin_upload(connection, "one", f"file-{name}")
            files.begin_upload(connection, "one", f"upload-{name}")
            assert files.end_upload(connection, "one", f"file-{name}", 3600, **FILE)
    for host in (contextlib.nullcontext, wrong_host):
        with host(), database.begin() as connection:
            assert files.ended(connection) == []
            assert all(files.find(connection, "one", f"file-{name}") for name in ("right", "wrong"))


@pytest.fixture
def runner(database, service, settings):
    return Runner(service, None, store_of(settings, database), "w")


def test_batches_of_both_hosts_go_on(database, wrong_host, runner):
    ids = [make(database, count=1)]
    with wrong_host():
        ids.append(make(database, count=1))
    for host in (contextlib.nullcontext, wrong_host):
        with host():
            runner.signed = float("-inf")
            runner._keep_house()
    with database.read() as connection:
        assert [batches.find(connection, None, batch)["status"] for batch in ids] == ["in_progress"] * 2
        assert len(connection.execute(batch_lines.select()).all()) == 2
    assert [counts(database, batch) for batch in ids] == [(1, 0, 0)] * 2


def test_no_line_fails_of_a_key_that_has_ended_by_the_wrong_clock_only(database, wrong_host, runner, service):
    make(database, count=2)
    service.keys.names = {"one": KeyFacts("one", ends_at=time.time() + 60)}
    with wrong_host():
        [line, another] = claim(database)
        runner._keep_house()  # which comes before lines are taken, and reads the clock of all
        assert "key_ended" not in asyncio.run(runner._asked(line)).text
    service.keys.names = {"one": KeyFacts("one", ends_at=time.time() - 60)}
    with wrong_host():
        assert "key_ended" in asyncio.run(runner._asked(another)).text


def test_what_goes_by_the_databases_clock_asks_it_for_nothing_else(database):
    """The time is a part of the statements, and takes no round trip of its own."""
    said = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *told: said.append(told[2]))
    batch = make(database, count=2)
    sign_on(database, "w")
    [line] = claim(database, "w", 1)
    with database.begin() as connection:
        file = files.add(connection, owner="one", **FILE)
        files.begin_upload(connection, "one", "file-new")
        assert files.renew_upload(connection, "file-new") and files.end_upload(
            connection, "one", "file-new", 60, **FILE
        )
        assert len(files.listed(connection, "one", files.Page())) == 2 and not files.ended(connection)
        assert files.hide(connection, file) and batches.cancel(connection, batch)
        claims.sign_off(connection, "w")
    assert line.batch_id == batch and any("timestamp()" in statement for statement in said)
    assert not [statement for statement in said if statement.startswith("SELECT CAST(EXTRACT")]
