"""A batch's input becomes lines: those of models that nobody serves have an error already, and nothing is left of what ended."""

import json
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from lingbi.batch import batches, claims
from lingbi.batch.lines import Bounds
from lingbi.batch.reading import read
from lingbi.batch.storage import Folder
from lingbi.batch.tables import batch_lines, batch_workers
from tests.server.batch.test_claims import claim, counts, finish, output, sign_on
from tests.server.batch.test_lines import CHAT, line

BOUNDS = Bounds(CHAT.endpoint, 10_000, 2000)


@pytest.fixture
def storage(tmp_path):
    return Folder(tmp_path / "files")


def submitted(database, storage, content: bytes):
    """A batch of such a file that worker `w` has taken to read; its row."""
    writer = storage.begin("file-1")
    writer.write(content)
    writer.finish()
    columns = {"endpoint": CHAT.endpoint, "input_file_id": "file-1", "completion_window": "24h"}
    with database.begin() as connection:
        batch = batches.create(connection, "one", 60, **columns)
        assert batches.take_reading(connection, batch, "w", is_alive=False)
    return shown(database, batch["id"])


def shown(database, batch_id: str):
    with database.read() as connection:
        return batches.find(connection, None, batch_id)


def lines_of(database, batch_id: str) -> int:
    asked = sa.select(sa.func.count()).where(batch_lines.c.batch_id == batch_id)
    with database.read() as connection:
        return connection.execute(asked).scalar_one()


def numbered(count: int) -> bytes:
    return b"".join(line(str(number)) for number in range(count))


def test_lines_of_models_that_nobody_serves_have_errors_of_their_own(database, storage):
    sign_on(database, "w", model="demo")
    other = {"body": {"model": "gpt-4o"}}
    batch = submitted(database, storage, line("a") + line("b", **other) + line("c") + line("d", **other))
    read(database, storage, batch, "w", BOUNDS)
    first, second = output(database, batch["id"], "errors")
    assert first["custom_id"] == "b" and first["error"]["code"] == "model_not_found"
    assert second["custom_id"] == "d" and "'gpt-4o' is not served; there are demo" in second["error"]["message"]
    assert counts(database, batch["id"]) == (4, 0, 2)
    assert [one.custom_id for one in claim(database)] == ["a", "c"]


def test_lines_wait_for_models_of_this_installation_and_for_those_that_were_here_lately(database, storage):
    """As while their workers load or restart, and at a rollout."""
    sign_on(database, "w", "drained", "killed")
    with database.begin() as connection:
        for worker, model, hours in (("drained", "drained", 0), ("killed", "killed", 1), ("old", "old", 25)):
            claims.sign_on(connection, database, worker, model)
            seen = sa.update(batch_workers).where(batch_workers.c.worker == worker)
            connection.execute(seen.values(seen_at=time.time() - hours * 3600))
        claims.sign_off(connection, "drained")
    models = ("demo", "drained", "killed", "loading", "old")
    batch = submitted(database, storage, b"".join(line(model, body={"model": model}) for model in models))
    read(database, storage, batch, "w", BOUNDS, ours={"demo", "loading"})
    assert counts(database, batch["id"]) == (5, 0, 1)
    (told,) = output(database, batch["id"], "errors")
    assert told["custom_id"] == "old" and "there are demo, drained, killed, loading" in told["error"]["message"]
    assert [[one.custom_id for one in claim(database, model=model)] for model in models] == [
        ["demo"], ["drained"], ["killed"], ["loading"], []
    ]  # fmt: skip


def test_a_line_that_names_an_alias_is_its_models(database, storage):
    """And one that names no model is that of the alias `default`, as at the gateway."""
    sign_on(database, "w")
    named = [{"model": "gpt-4o"}, {"model": "demo"}, {"model": "other"}, {"model": None}, {"model": ""}, {}]
    batch = submitted(database, storage, b"".join(line(str(n), body=body) for n, body in enumerate(named)))
    read(database, storage, batch, "w", replace(BOUNDS, aliases={"gpt-4o": "demo", "default": "demo"}))
    assert [one.custom_id for one in claim(database)] == ["0", "1", "3", "4", "5"]
    assert [one["custom_id"] for one in output(database, batch["id"], "errors")] == ["2"]


def test_more_lines_than_a_transaction_takes_are_all_there_once(database, storage):
    sign_on(database, "w")
    batch = submitted(database, storage, numbered(2345))
    read(database, storage, batch, "w", BOUNDS)
    assert counts(database, batch["id"]) == (2345, 0, 0)
    assert [one.line for one in claim(database, count=5000)] == list(range(1, 2346))


def test_a_batch_that_ends_while_it_is_read_keeps_no_line(database, storage, monkeypatch):
    """Whoever reads it writes no more, and what was written goes."""
    sign_on(database, "w")
    batch = submitted(database, storage, numbered(3000))
    add, added = batches.add_lines, []

    def add_and_cancel(connection, batch_id, lines, ended):
        add(connection, batch_id, lines, ended)
        added.append(len(lines))
        assert batches.cancel(connection, batch_id)

    monkeypatch.setattr(batches, "add_lines", add_and_cancel)
    read(database, storage, batch, "w", BOUNDS)
    assert added == [1000] and lines_of(database, batch["id"]) == 1000
    with database.begin() as connection:
        assert batches.end(connection, batches.find(connection, None, batch["id"]), "cancelled", life_s=60)
    assert lines_of(database, batch["id"]) == 0 and shown(database, batch["id"])["error_file_id"] is None


def test_another_worker_that_reads_has_the_first_one_stop(database, storage):
    sign_on(database, "w", "next")
    batch = submitted(database, storage, numbered(10))
    with database.begin() as connection:
        assert batches.take_reading(connection, batch, "next", is_alive=False)
    read(database, storage, batch, "w", BOUNDS)
    assert lines_of(database, batch["id"]) == 0 and shown(database, batch["id"])["status"] == "validating"
    read(database, storage, batch, "next", BOUNDS)
    assert counts(database, batch["id"]) == (10, 0, 0)


def test_what_a_cancelled_batch_did_not_ask_goes_and_its_results_go_with_their_files(database, storage):
    sign_on(database, "w")
    batch = submitted(database, storage, numbered(20))
    read(database, storage, batch, "w", BOUNDS)
    good, bad = claim(database, count=2)
    assert finish(database, "w", good) and finish(database, "w", bad, 400)
    with database.begin() as connection:
        assert batches.cancel(connection, batch["id"])
        assert batches.end(connection, batches.find(connection, None, batch["id"]), "cancelled", life_s=60)
    assert lines_of(database, batch["id"]) == 2
    with database.begin() as connection:
        batches.forget_results(connection, batch["id"], "output")
    assert [one["custom_id"] for one in output(database, batch["id"], "errors")] == ["1"]
    with database.begin() as connection:
        batches.forget_results(connection, batch["id"], "errors")
    assert lines_of(database, batch["id"]) == 0 and counts(database, batch["id"]) == (20, 1, 1)


def test_an_input_that_is_gone_fails_the_batch(database, storage):
    sign_on(database, "w")
    batch = submitted(database, storage, numbered(1))
    storage.remove("file-1")
    read(database, storage, batch, "w", BOUNDS)
    row = shown(database, batch["id"])
    assert row["status"] == "failed" and json.loads(row["errors"])["data"][0]["code"] == "file_not_found"


@pytest.mark.parametrize(("content", "code"), [(b"", "empty_file"), (numbered(1) * 2, "duplicate_custom_id")])
def test_an_input_that_is_none_fails_the_batch_and_leaves_no_line(database, storage, content, code):
    sign_on(database, "w")
    batch = submitted(database, storage, content)
    read(database, storage, batch, "w", BOUNDS)
    row = shown(database, batch["id"])
    assert (row["status"], row["output_file_id"], row["error_file_id"]) == ("failed", None, None)
    assert [fault["code"] for fault in json.loads(row["errors"])["data"]] == [code]
    assert lines_of(database, batch["id"]) == 0


def test_a_fault_beyond_many_good_lines_fails_the_batch_and_leaves_no_line(database, storage):
    sign_on(database, "w")
    batch = submitted(database, storage, numbered(2500) + b"oops\n")
    read(database, storage, batch, "w", BOUNDS)
    assert json.loads(shown(database, batch["id"])["errors"])["data"][0]["line"] == 2501
    assert lines_of(database, batch["id"]) == 0
