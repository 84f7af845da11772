"""The runner on what lines and machines do to it: each line has one result, none is asked for ever, and nothing stops it."""

import asyncio
import json
import logging
import time
from dataclasses import replace

import pytest
from starlette.responses import JSONResponse

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import batches, claims, files
from lingbi.http.batch import line_bodies, runner
from lingbi.http.batch.runner import Runner
from lingbi.http.readiness import READY
from tests.server.batch.test_claims import counts, output
from tests.server.batch.test_lines import line
from tests.server.conftest import NoEngine

ENDED = ("completed", "failed", "expired", "cancelled")
BIG = b'{"custom_id": "big", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "model", "n": %s}}\n'


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    for name, seconds in (("LOOK_S", 0.05), ("IDLE_LOOK_S", 0.05), ("AGAIN_S", 0.2)):
        monkeypatch.setattr(runner, name, seconds)


def demo_line(custom_id: str) -> bytes:
    return line(custom_id, body={"model": "model", "messages": []})


def kept(store, content: bytes, purpose: str = "batch") -> str:
    """The id of a file of the key `one`."""
    with store.database.begin() as connection:
        row = files.add(connection, owner="one", filename="x", purpose=purpose, bytes=len(content))
    writer = store.storage.begin(row["id"])
    writer.write(content)
    writer.finish()
    return row["id"]


def submitted(store, content: bytes, window_s: float = 60) -> str:
    """The id of a batch of such a file, `file-1`."""
    writer = store.storage.begin("file-1")
    writer.write(content)
    writer.finish()
    columns = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}
    with store.database.begin() as connection:
        return batches.create(connection, "one", window_s, **columns)["id"]


async def answer(scope, receive, send):
    """An application that answers everything at once."""
    await JSONResponse({"choices": []})(scope, receive, send)


def shown(store, batch_id: str):
    with store.database.read() as connection:
        return batches.find(connection, None, batch_id)


def run(service, store, batch_id: str, app=answer, timeout_s: float = 60, names: runner.Names = runner.NO_NAMES):
    """Have a runner work until the batch has ended; returns its row."""
    service.store = store

    async def work() -> None:
        service.take_engine(NoEngine(), 4)
        service.readiness.enter(READY)
        service.takes_lines = True
        one = Runner(service, app, store, "w", names)
        running = asyncio.create_task(one.run())
        until = time.monotonic() + timeout_s
        while shown(store, batch_id)["status"] not in ENDED:
            assert time.monotonic() < until, dict(shown(store, batch_id))
            await asyncio.sleep(0.02)
        await asyncio.wait({asyncio.wrap_future(one.removal.under_way)}, timeout=5)
        service.takes_lines = False
        one.changed.set()
        await running

    asyncio.run(work())
    return shown(store, batch_id)


def test_every_line_is_asked_as_its_owner(service, store):
    asked = []

    async def note(scope, receive, send):
        asked.append((scope["lingbi.inside"].name, json.loads((await receive())["body"])["model"]))
        await answer(scope, receive, send)

    batch = run(service, store, submitted(store, b"".join(demo_line(str(number)) for number in range(50))), note)
    assert batch["status"] == "completed" and counts(store.database, batch["id"]) == (50, 50, 0)
    assert asked == [("one", "model")] * 50


def test_a_line_that_names_an_alias_is_asked_by_its_models_name(service, store):
    asked = []

    async def note(scope, receive, send):
        asked.append(json.loads((await receive())["body"])["model"])
        await answer(scope, receive, send)

    content = line("a", body={"model": "gpt-4o", "messages": []}) + line("b", body={"messages": []})
    names = runner.Names(aliases={"gpt-4o": "model", "default": "model"})
    assert run(service, store, submitted(store, content), note, names=names)["completed"] == 2
    assert asked == ["model", "model"]


def test_lines_whose_model_does_not_come_end_with_their_batch(service, store):
    content = demo_line("a") + line("b", body={"model": "loading", "messages": []})
    names = runner.Names(ours=frozenset({"model", "loading"}))
    batch = run(service, store, submitted(store, content, window_s=3), names=names)
    assert (batch["status"], batch["completed"], batch["failed"]) == ("expired", 1, 1)
    (told,) = output(store.database, batch["id"], "errors")
    assert (told["custom_id"], told["error"]["code"]) == ("b", "batch_expired")


def test_an_input_that_is_deleted_meanwhile_leaves_an_error_for_each_line(service, store):
    """Its owner may delete it, and its time may be over before that of the batch."""

    async def delete(scope, receive, send):
        store.storage.remove("file-1")
        await answer(scope, receive, send)

    batch = run(service, store, submitted(store, b"".join(demo_line(str(number)) for number in range(30))), delete)
    assert batch["status"] == "completed" and batch["completed"] >= 1 and batch["completed"] + batch["failed"] == 30
    errors = output(store.database, batch["id"], "errors")
    assert {one["error"]["code"] for one in errors} == {"file_not_found"}
    assert "content of file-1 is gone" in errors[0]["error"]["message"]


def test_a_picture_whose_content_is_gone_is_its_lines_error(service, store):
    """As after a restore from a backup without uploads."""
    picture = kept(store, b"\x89PNG", "vision")
    store.storage.remove(picture)
    content = [{"type": "image_url", "image_url": {"url": picture}}]
    bad = line("bad", body={"model": "model", "messages": [{"role": "user", "content": content}]})
    batch = run(service, store, submitted(store, bad + demo_line("good")))
    assert (batch["status"], batch["completed"], batch["failed"]) == ("completed", 1, 1)
    assert output(store.database, batch["id"], "errors")[0]["error"]["code"] == "file_not_found"


def test_a_line_whose_files_make_it_larger_than_a_request_may_be_has_an_error_and_none_is_read(
    service, store, monkeypatch
):
    """Each counts as often as the line names it, as the base64 that it would be."""
    store = replace(store, rules=replace(store.rules, line_bytes=10_000))
    picture, opened, real = kept(store, b"x" * 3000, "vision"), [], store.storage.open
    part = {"type": "image_url", "image_url": {"url": picture}}
    twice, thrice = (
        line(custom_id, body={"model": "model", "messages": [{"role": "user", "content": [part] * count}]})
        for custom_id, count in (("twice", 2), ("thrice", 3))
    )
    monkeypatch.setattr(store.storage, "open", lambda file_id: opened.append(file_id) or real(file_id))
    batch = run(service, store, submitted(store, twice + thrice))
    assert (batch["status"], batch["completed"], batch["failed"]) == ("completed", 1, 1)
    told = output(store.database, batch["id"], "errors")[0]
    assert (told["custom_id"], told["error"]["code"]) == ("thrice", "line_too_large")
    assert "a request may have 10000; send smaller or fewer pictures" in told["error"]["message"]
    assert opened.count(picture) == 2


def test_a_line_that_is_judged_and_yet_cannot_be_read_has_an_error_of_its_own(service, store, monkeypatch):
    def unreadable(text, model, read_file):
        if b'"bad"' in text:
            raise ValueError("Exceeds the limit (4300 digits) for integer string conversion")
        return b"{}"

    monkeypatch.setattr(line_bodies, "body_of", unreadable)
    batch = run(service, store, submitted(store, demo_line("bad") + demo_line("good")))
    assert (batch["status"], batch["completed"], batch["failed"]) == ("completed", 1, 1)
    assert output(store.database, batch["id"], "errors")[0]["error"]["code"] == "invalid_line"


ODD = {"long": b"1" * 5000, "negative": b"-" + b"9" * 400, "infinite": b"1e999", "deep": b"[" * 150 + b"]" * 150}


@pytest.mark.parametrize("number", ODD.values(), ids=ODD)
def test_odd_numbers_and_deep_lists_end_their_own_line_or_none(service, store, number):
    batch = run(service, store, submitted(store, BIG % number + demo_line("good")))
    if batch["status"] == "failed":
        assert json.loads(batch["errors"])["data"][0]["line"] == 1
    else:
        assert (batch["status"], batch["completed"] + batch["failed"]) == ("completed", 2)


def over_quota(why: str) -> JSONResponse:
    error = {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota", "quota": {"why": why}}
    return JSONResponse({"error": error}, 429)


def test_a_line_that_is_larger_than_its_keys_limit_is_asked_once_and_the_others_go_on(service, store):
    """As one with three pictures where the key has two a day."""
    asked = []

    async def refuse(scope, receive, send):
        count = json.loads((await receive())["body"])["n"]
        asked.append(count)
        await (over_quota("too large") if count == 3 else JSONResponse({}))(scope, receive, send)

    counted = [line(str(number), body={"model": "model", "n": 3 if number < 8 else 1}) for number in range(28)]
    batch = run(service, store, submitted(store, b"".join(counted), window_s=20), refuse)
    assert batch["status"] == "completed" and counts(store.database, batch["id"]) == (28, 20, 8)
    assert asked.count(3) == 8
    told = output(store.database, batch["id"], "errors")[0]["response"]
    assert (told["status_code"], told["body"]["error"]["quota"]["why"]) == (429, "too large")


@pytest.mark.parametrize("why", ["used up", "held"])
def test_a_line_for_which_nothing_is_left_now_is_asked_again(service, store, why):
    answers = [over_quota(why), JSONResponse({"error": "busy"}, 429), JSONResponse("x", 429), JSONResponse({})]

    async def later(scope, receive, send):
        await answers.pop(0)(scope, receive, send)

    batch = run(service, store, submitted(store, demo_line("a")), later)
    assert batch["status"] == "completed" and counts(store.database, batch["id"]) == (1, 1, 0) and not answers


@pytest.mark.parametrize("fault", [DatabaseAway("away"), OSError(5, "Input/output error"), RuntimeError("a slip")])
def test_an_input_that_cannot_be_read_now_is_read_again(service, store, monkeypatch, fault, caplog):
    """By the same worker: the others leave it to one that is alive."""
    tries, add = [], batches.add_lines

    def fails_twice(*arguments):
        tries.append(1)
        if len(tries) < 3:
            raise fault
        add(*arguments)

    monkeypatch.setattr(batches, "add_lines", fails_twice)
    batch = run(service, store, submitted(store, demo_line("a") + demo_line("b")))
    assert batch["status"] == "completed" and counts(store.database, batch["id"]) == (2, 2, 0) and len(tries) == 3
    assert "could not be read, and will be anew" in caplog.text


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), DatabaseAway("away"), RuntimeError("a slip")])
def test_a_line_that_cannot_be_asked_now_waits_a_while_and_is_asked_once(service, store, monkeypatch, fault, caplog):
    opened, tries = store.storage.open, []

    def fails(file_id: str):
        if len(tries) < 4 and shown(store, batch_id)["status"] == "in_progress":
            tries.append(time.monotonic())
            raise fault
        return opened(file_id)

    batch_id = submitted(store, demo_line("a"))
    monkeypatch.setattr(store.storage, "open", fails)
    batch = run(service, store, batch_id)
    assert counts(store.database, batch["id"]) == (1, 1, 0) and batch["status"] == "completed"
    assert len(tries) == 4 and tries[-1] - tries[0] >= 3 * runner.AGAIN_S * 0.9, "it was tried without a pause"
    assert not [record for record in caplog.records if record.name == "asyncio"], caplog.text


def test_a_result_waits_for_a_database_that_is_away(service, store, monkeypatch, caplog):
    """As where a disk is full."""
    caplog.set_level(logging.WARNING)
    finish, tries = claims.finish, []

    def fails_twice(*arguments):
        tries.append(1)
        if len(tries) < 3:
            raise DatabaseAway("database or disk is full")
        return finish(*arguments)

    monkeypatch.setattr(claims, "finish", fails_twice)
    asked = []

    async def note(scope, receive, send):
        asked.append(1)
        await answer(scope, receive, send)

    batch = run(service, store, submitted(store, demo_line("a")), note)
    assert batch["status"] == "completed" and asked == [1] and len(tries) == 3
    assert "disk is full" in caplog.text


def test_what_expires_in_the_middle_ends_with_an_error_for_each_line_that_was_not_asked(service, store):
    async def slow(scope, receive, send):
        await asyncio.sleep(0.05)
        await answer(scope, receive, send)

    batch_id = submitted(store, b"".join(demo_line(str(number)) for number in range(1500)), window_s=1.5)
    batch = run(service, store, batch_id, slow)
    assert batch["status"] == "expired" and batch["completed"] >= 1 and batch["completed"] + batch["failed"] == 1500
    errors = output(store.database, batch_id, "errors")
    assert len(errors) == batch["failed"] and {one["error"]["code"] for one in errors} == {"batch_expired"}


def test_lines_of_a_key_that_has_ended_have_errors_of_their_own(service, store, monkeypatch):
    monkeypatch.setattr(service.keys, "account", lambda name: None)
    batch = run(service, store, submitted(store, demo_line("a")))
    assert batch["failed"] == 1 and output(store.database, batch["id"], "errors")[0]["error"]["code"] == "key_ended"
