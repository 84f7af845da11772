"""Lines of batches in the database: taken by one worker, answered once, given back by who is gone, whatever happens."""

import json
import threading
import time
from collections import Counter

import sqlalchemy as sa

from lingbi.accounts.database import Database
from lingbi.batch import batches, claims, files
from lingbi.batch.files import Page
from lingbi.batch.lines import Line
from lingbi.batch.states import next_status
from lingbi.batch.tables import batch_workers


def make(database: Database, owner: str = "one", count: int = 10, models: tuple = ("demo",), window_s: int = 60) -> str:
    """A batch whose lines wait; returns its id."""
    columns = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}
    lines = [Line(number, f"id-{number}", models[number % len(models)], number, 1) for number in range(1, count + 1)]
    with database.begin() as connection:
        batch = batches.create(connection, owner, window_s, **columns)
        assert batches.take_reading(connection, batch, "w", is_alive=False)
        batches.add_lines(connection, batch["id"], lines)
        assert batches.begin(connection, batch["id"], "w", count)
    return batch["id"]


def sign_on(database: Database, *workers: str, model: str = "demo") -> None:
    with database.begin() as connection:
        for worker in workers:
            claims.sign_on(connection, database, worker, model)


def claim(database: Database, worker: str = "w", count: int = 100, model: str = "demo", waiting: tuple = ()) -> list:
    with database.begin() as connection:
        return claims.claim(connection, database, worker, model, count, waiting)


def finish(database: Database, worker: str, claimed: claims.Claimed, status: int = 200) -> bool:
    with database.begin() as connection:
        return claims.finish(connection, worker, claimed, claims.answered(claimed, "req", status, {"by": worker}))


def counts(database: Database, batch_id: str) -> tuple:
    with database.read() as connection:
        row = batches.find(connection, None, batch_id)
    return row["total"], row["completed"], row["failed"]


def output(database: Database, batch_id: str, kind: str = "output") -> list:
    return [json.loads(text) for text in claims.results(database, batch_id, kind)]


def test_each_line_goes_to_one_worker_and_each_result_is_written_once(database):
    batch = make(database, count=200)
    workers = [f"w{number}" for number in range(4)]
    sign_on(database, *workers)

    def work(worker: str) -> None:
        while taken := claim(database, worker, 7):
            for one in taken:
                assert finish(database, worker, one)
                assert not finish(database, worker, one)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = output(database, batch)
    assert [one["custom_id"] for one in told] == [f"id-{number}" for number in range(1, 201)]
    assert len({one["id"] for one in told}) == 200 and counts(database, batch) == (200, 200, 0)


def test_lines_of_a_worker_that_is_gone_wait_again_and_its_late_result_is_dropped(database):
    batch = make(database, count=3)
    sign_on(database, "dead", "alive")
    taken = claim(database, "dead")
    assert len(taken) == 3 and claim(database, "alive") == []
    with database.begin() as connection:
        silent = sa.update(batch_workers).where(batch_workers.c.worker == "dead")
        connection.execute(silent.values(seen_at=time.time() - claims.LOST_S - 1))
        assert claims.free_lost(connection) == 3
    again = claim(database, "alive")
    assert [one.line for one in again] == [1, 2, 3] and finish(database, "alive", again[0])
    assert not finish(database, "dead", taken[0]) and not finish(database, "dead", taken[1])
    assert [one["response"]["body"] for one in output(database, batch)] == [{"by": "alive"}]


def test_lines_with_results_are_not_read_to_find_those_of_workers_that_are_gone(store):
    """There may be millions, and every worker looks for them with SQLite's only lock."""
    make(store.database)
    plans = []

    def explain(connection, cursor, statement, parameters, context, is_many):
        if statement.startswith("UPDATE batch_lines"):
            explained = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append([row[3] for row in explained])

    sa.event.listen(store.database.engine, "before_cursor_execute", explain)
    with store.database.begin() as connection:
        claims.free_lost(connection)
        claims.sign_off(connection, "w")
    assert len(plans) == 2 and not [step for plan in plans for step in plan if step == "SCAN batch_lines"], plans


def test_who_signs_off_gives_back_what_it_runs(database):
    make(database, count=2)
    sign_on(database, "w", "next")
    assert len(claim(database, "w")) == 2
    with database.begin() as connection:
        claims.sign_off(connection, "w")
        assert claims.alive(connection) == {"next"}
    assert len(claim(database, "next")) == 2


def test_a_workers_model_is_remembered_for_a_day(database):
    sign_on(database, "w", "gone", "old")
    with database.begin() as connection:
        claims.sign_off(connection, "gone")
        assert claims.models_seen(connection) == {"demo"}
        silent = sa.update(batch_workers).where(batch_workers.c.worker == "old")
        connection.execute(silent.values(seen_at=time.time() - claims.REMEMBERED_S - 1))
        claims.free_lost(connection)
        assert set(connection.execute(sa.select(batch_workers.c.worker)).scalars()) == {"w", "gone"}


def test_owners_take_turns_and_models_are_kept_apart(database):
    first, second = make(database, "one", 50), make(database, "two", 50, models=("demo", "other"))
    sign_on(database, "w")
    taken = [one for _ in range(5) for one in claim(database, count=2)]
    assert Counter(one.batch_id for one in taken) == {first: 6, second: 4}
    assert [one.line for one in taken if one.batch_id == second] == [2, 4, 6, 8]
    assert {one.owner for one in claim(database, count=20, waiting=("one",))} == {"two"}
    assert [one.line for one in claim(database, count=3, model="other")] == [1, 3, 5]


def test_a_batch_whose_last_lines_were_ended_by_its_expiry_has_expired(database):
    batch = make(database, count=2)
    sign_on(database, "w")
    assert finish(database, "w", claim(database, count=1)[0])
    with database.begin() as connection:
        assert claims.end_waiting(connection, database, batch, "batch_expired", "it expired") == 1
        batches.note_expiry(connection, batch)
        assert next_status(batches.find(connection, None, batch), True, is_any_running=False) == "expired"


def test_a_line_that_fails_goes_to_the_errors_file(database):
    batch = make(database, count=2)
    sign_on(database, "w")
    good, bad = claim(database)
    assert finish(database, "w", good) and finish(database, "w", bad, 400)
    assert counts(database, batch) == (2, 1, 1)
    assert [one["custom_id"] for one in output(database, batch, "errors")] == ["id-2"]
    with database.begin() as connection:
        row = batches.find(connection, None, batch)
        assert next_status(row, is_expired=False, is_any_running=False) == "completed"
        assert batches.end(connection, row, "completed", life_s=60)
        assert not batches.end(connection, row, "completed", life_s=60)
    with database.read() as connection:
        made = files.listed(connection, "one", Page())
        assert {row["kind"]: row["bytes"] for row in made} == {
            kind: sum(len(text.encode()) for text in claims.results(database, batch, kind))
            for kind in ("output", "errors")
        }
        assert files.listed(connection, "two", Page()) == [] and files.find(connection, "two", made[0]["id"]) is None


def test_what_was_not_asked_in_time_is_told_as_expired(database):
    batch = make(database, count=1200)
    sign_on(database, "w")
    assert finish(database, "w", claim(database, count=1)[0])
    ended = 0
    while True:
        with database.begin() as connection:
            if not (count := claims.end_waiting(connection, database, batch, "batch_expired", "too late")):
                break
        ended += count
    assert ended == 1199 and counts(database, batch) == (1200, 1, 1199)
    told = output(database, batch, "errors")
    assert len(told) == 1199 and told[0]["error"] == {"code": "batch_expired", "message": "too late"}


def test_batches_and_what_is_left_of_them_are_counted(database):
    first, _ = make(database, count=3), make(database, count=5)
    sign_on(database, "w")
    assert finish(database, "w", claim(database, count=1)[0])
    with database.begin() as connection:
        assert batches.cancel(connection, first)
    with database.read() as connection:
        counted, left = batches.by_status(connection), batches.lines_left(batches.open_ones(connection))
    assert (counted["in_progress"], counted["cancelling"], counted["completed"], sum(counted.values())) == (1, 1, 0, 2)
    assert left == 5


def test_a_cancelled_batch_gives_no_further_line(database):
    batch = make(database, count=4)
    sign_on(database, "w")
    running = claim(database, count=1)[0]
    with database.begin() as connection:
        assert batches.cancel(connection, batch) and not batches.cancel(connection, batch)
    assert claim(database) == []
    with database.begin() as connection:
        row = batches.find(connection, None, batch)
        assert next_status(row, False, claims.running(connection, batch) > 0) is None
    assert finish(database, "w", running)
    with database.begin() as connection:
        row = batches.find(connection, None, batch)
        assert next_status(row, False, claims.running(connection, batch) > 0) == "cancelled"


def test_a_batch_that_is_cancelled_while_it_finishes_ends_once(database):
    batch = make(database, count=1)
    sign_on(database, "w")
    assert finish(database, "w", claim(database, count=1)[0])
    with database.begin() as connection:
        seen = batches.find(connection, None, batch)  # by a worker that is about to end it
        assert next_status(seen, is_expired=False, is_any_running=False) == "completed"
        assert batches.cancel(connection, batch)
    with database.begin() as connection:
        assert not batches.end(connection, seen, "completed", life_s=60)
        row = batches.find(connection, None, batch)
        assert next_status(row, is_expired=False, is_any_running=False) == "cancelled"
        assert batches.end(connection, row, "cancelled", life_s=60) and not batches.cancel(connection, batch)
    with database.read() as connection:
        row = batches.find(connection, None, batch)
        made = files.listed(connection, "one", Page())
    assert row["status"] == "cancelled" and [one["id"] for one in made] == [row["output_file_id"]]


def test_pages_of_a_list_hold_each_batch_once(database):
    made = [make(database, count=1) for _ in range(7)]
    make(database, "two", 1)
    seen, after = [], None
    while True:
        with database.read() as connection:
            rows = batches.listed(connection, "one", Page(3, after))
        seen += [row["id"] for row in rows[:3]]
        if len(rows) <= 3:
            break
        after = seen[-1]
    assert seen == made[::-1]
