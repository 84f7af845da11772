"""Uploads that are cut off by kill -9, or stand still: nothing of them stays, and none that goes on is touched."""

import asyncio
import json
import multiprocessing
import os
import signal

import pytest

from lingbi.accounts.database import Database
from lingbi.batch import files
from lingbi.batch.store import store_of
from lingbi.batch.uploads import remove
from lingbi.http.app import create_app
from lingbi.http.batch import runner
from lingbi.http.readiness import READY
from lingbi.settings import Settings
from tests.server.batch.test_uploads import age, kept
from tests.server.conftest import NoEngine
from tests.server.http.batch.test_runner import demo_line, run, submitted

LATER_S = 3600.0
HEAD = b"".join(
    b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s' % field
    for field in ((b"purpose", b"batch\r\n"), (b'file"; filename="x', b""))
)
HALF, END = b"x" * (3 << 20), b"\r\n--x--\r\n"
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(runner, "IDLE_LOOK_S", 0.05)


@pytest.fixture
def store(database, tmp_path):
    """With SQLite and a folder, and with PostgreSQL alone."""
    return store_of(Settings(state_dir=tmp_path), database)


async def upload(service, receive, declared: int | None = None, header: bytes = b"content-length") -> tuple[int, dict]:
    """(status, answer) of an upload whose body comes from there. declared: how long it is, as this header says."""
    asked = {"type": "http", "method": "POST", "path": "/v1/files", "raw_path": b"/v1/files", "query_string": b""}
    headers = [(b"authorization", b"Bearer secret"), (b"content-type", b"multipart/form-data; boundary=x")]
    if declared is not None:
        headers.append((header, str(declared).encode()))
    if not service.readiness.is_ready:
        service.take_engine(NoEngine(), 1)
        service.readiness.enter(READY)
    sent = []

    async def send(message):
        sent.append(message)

    await create_app(service)({**asked, "headers": headers, "client": ("127.0.0.1", 1)}, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


def piece(content: bytes, is_last: bool = False) -> dict:
    return {"type": "http.request", "body": content, "more_body": not is_last}


def upload_half(service, url, came) -> None:
    """What another worker does until it is killed: half of a file has come, and the rest is awaited."""
    service.store = store_of(service.settings, Database(url))
    pieces = iter([piece(HEAD), piece(HALF)])

    async def receive():
        if following := next(pieces, None):
            return following
        came.send("half")
        return await asyncio.Event().wait()

    asyncio.run(upload(service, receive))


def test_what_kill_9_leaves_of_an_upload_is_removed_later(service, settings, store, tmp_path, monkeypatch):
    service.settings = settings.model_copy(update={"state_dir": tmp_path})
    here, there = fork.Pipe()
    worker = fork.Process(target=upload_half, args=(service, store.database.url, there))
    worker.start()
    assert here.poll(60) and here.recv() == "half"
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    left = kept(store)
    assert left
    run(service, store, submitted(store, demo_line("a")))
    assert left < kept(store), "it may still go on"
    store.storage.remove("file-1")
    age(store, LATER_S)
    run(service, store, submitted(store, demo_line("b")))
    assert kept(store) == {"file-1"}


def test_a_content_that_cannot_be_removed_stops_nothing_and_is_removed_later(service, store, monkeypatch, caplog):
    with store.database.begin() as connection:
        files.begin_upload(connection, "one", "file-2")
    age(store, LATER_S)

    def fails(file_id: str) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(store.storage, "remove", fails)
        assert run(service, store, submitted(store, demo_line("a")))["status"] == "completed"
    assert "file-2 could not be removed, and will be later" in caplog.text and "file-2" in kept(store)
    store.storage.remove("file-1")
    run(service, store, submitted(store, demo_line("b")))
    assert kept(store) == {"file-1"}


def test_who_goes_on_with_an_upload_that_was_given_up_is_told(service, store, monkeypatch):
    service.store = store
    pieces = [piece(HEAD), piece(HALF), piece(HALF), piece(END, is_last=True)]

    async def receive():
        if len(pieces) == 2:
            age(store, LATER_S)
            with store.database.read() as connection:
                found = files.ended(connection)
            for row in found:
                remove(store, row)
            monkeypatch.setattr("lingbi.batch.uploads.RENEW_S", 0.0)  # the clock of the event loop stays as it is
        return pieces.pop(0)

    status, answer = asyncio.run(upload(service, receive))
    assert (status, answer["error"]["code"]) == (408, "request_timeout") and "send it again" in answer["error"][
        "message"
    ]
    assert kept(store) == set()
