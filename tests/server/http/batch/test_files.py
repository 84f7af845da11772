"""/v1/files and /v1/batches as the official client sees them, and what each refuses; no model answers here."""

import contextlib
import json
import resource
import time

import pytest
from openai import APIStatusError, OpenAI
from starlette.testclient import TestClient

from lingbi.accounts.database import DatabaseAway
from lingbi.batch import batches, files
from lingbi.batch.store import store_of
from lingbi.http.app import create_app
from lingbi.http.readiness import READY
from lingbi.settings import Settings
from tests.server.conftest import KEY, NoEngine

OTHER = {"Authorization": "Bearer other"}
LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path, max_file_mib=1, files_mib=2)


@pytest.fixture
def client(service, store):
    service.store = store
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        service.take_engine(NoEngine(), 1)
        service.readiness.enter(READY)
        yield client


@pytest.fixture
def openai(client):
    return OpenAI(api_key="secret", base_url="http://testserver/v1", http_client=client, max_retries=0)


def upload(client, content: bytes = LINES, purpose: str = "batch", headers: dict = KEY, **fields):
    return client.post(
        "/v1/files", headers=headers, files={"file": ("行.jsonl", content)}, data={"purpose": purpose} | fields
    )


def test_a_file_is_kept_listed_read_and_deleted(openai):
    made = openai.files.create(file=("lines.jsonl", LINES), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.object) == (len(LINES), "lines.jsonl", "batch", "file")
    assert made.expires_at - made.created_at == 30 * 86400
    assert openai.files.retrieve(made.id) == made and [one.id for one in openai.files.list()] == [made.id]
    assert openai.files.content(made.id).read() == LINES
    assert openai.files.delete(made.id).deleted and list(openai.files.list()) == []


def test_pages_of_files_are_walked_by_the_client(openai):
    made = [openai.files.create(file=(f"{number}", b"x"), purpose="vision").id for number in range(5)]
    openai.files.create(file=("lines", LINES), purpose="batch")
    assert [one.id for one in openai.files.list(limit=2, purpose="vision")] == made[::-1]
    assert [one.id for one in openai.files.list(limit=2, purpose="vision", order="asc")] == made


def test_files_and_batches_of_another_key_are_not_there(client):
    made = upload(client).json()["id"]
    batch = create(client, made).json()["id"]
    for method, path in (
        ("GET", f"/v1/files/{made}"),
        ("GET", f"/v1/files/{made}/content"),
        ("DELETE", f"/v1/files/{made}"),
        ("GET", f"/v1/batches/{batch}"),
        ("POST", f"/v1/batches/{batch}/cancel"),
    ):
        answer = client.request(method, path, headers=OTHER)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert create(client, made, headers=OTHER).status_code == 404
    for path in ("/v1/files", "/v1/batches"):
        assert client.get(path, headers=OTHER).json()["data"] == []
        assert client.get(path).status_code == 401


REFUSED = {
    "another purpose": ({"purpose": "fine-tune"}, 400, "purpose"),
    "no purpose": ({"purpose": ""}, 400, "purpose"),
    "a life that is too short": ({"expires_after[seconds]": "5"}, 400, "expires_after"),
    "a life that is too long": ({"expires_after[seconds]": "2592001"}, 400, "expires_after"),
    "a life that is too long in its last digits": ({"expires_after[seconds]": "0025920000"}, 400, "expires_after"),
    "a life without end": ({"expires_after[seconds]": "000003600" + "9" * 330}, 400, "expires_after"),
    "a life that is no number": ({"expires_after[seconds]": "1e4"}, 400, "expires_after"),
    "a field that is too long": ({"note": "x" * 1001}, 400, "note"),
    "a file that is too large": ({"content": b"x" * ((1 << 20) + 1)}, 413, "file"),
}


@pytest.mark.parametrize(("given", "status", "param"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing_behind(client, store, given, status, param):
    answer = upload(client, **given)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert list(store.storage.path.iterdir()) == [] and client.get("/v1/files", headers=KEY).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"{}", "application/json", "send multipart/form-data"),
        (b"--y\r\n\r\n", "multipart/form-data; boundary=x", "no multipart/form-data"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhal',
            "multipart/form-data; boundary=x",
            "ends before",
        ),
        (b"--x--\r\n", "multipart/form-data; boundary=x", "the form has no file"),
        (b"", "multipart/form-data", "send multipart/form-data"),
    ],
)
def test_what_is_no_form_is_told(client, store, body, kind, told):
    answer = client.post("/v1/files", content=body, headers=KEY | {"Content-Type": kind})
    assert answer.status_code == 400 and told in answer.json()["error"]["message"], answer.text
    assert list(store.storage.path.iterdir()) == []


def test_a_key_stores_as_much_as_it_may(client):
    for _ in range(2):
        assert upload(client, b"x" * 900_000).status_code == 200
    answer = upload(client, b"x" * 900_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "storage_quota_exceeded")
    assert "1 MiB" in answer.json()["error"]["message"] and "2 MiB" in answer.json()["error"]["message"]
    assert upload(client, b"x" * 900_000, headers=OTHER).status_code == 200


@contextlib.contextmanager
def disk_of(size: int):
    """A disk that holds so many bytes of a file: the system ends a write at a limit as it does at a disk's end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_keeps_nothing_of_a_file(client, store):
    with disk_of(600_000):
        answer = upload(client, b"x" * 900_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage"), answer.text
    assert list(store.storage.path.iterdir()) == [] and client.get("/v1/files", headers=KEY).json()["data"] == []
    assert upload(client, b"x" * 900_000).status_code == 200


def test_a_disk_that_is_full_at_a_files_last_piece_keeps_nothing_of_it(client, store):
    """What is written last stays in the program until the file is closed, and is refused then once more."""
    with disk_of(600_000):
        answer = upload(client, b"x" * 600_900)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage"), answer.text
    assert list(store.storage.path.iterdir()) == []


def test_a_database_that_is_away_is_told_and_nothing_is_kept(client, store, monkeypatch):
    kept = upload(client).json()["id"]

    def away(*_, **__):
        raise DatabaseAway("the accounts' database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(files, "end_upload", away)
        answer = upload(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_away")
        assert answer.headers["retry-after"] and [file.name for file in store.storage.path.iterdir()] == [kept]
    monkeypatch.setattr(store.database, "begin", away)
    monkeypatch.setattr(store.database, "read", away)
    for method, path in (("GET", "/v1/files"), ("GET", f"/v1/files/{kept}/content"), ("GET", "/v1/batches")):
        answer = client.request(method, path, headers=KEY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_away"), path
    assert create(client, kept).status_code == 503


def test_a_file_goes_when_its_time_is_over(client, store, monkeypatch):
    made = upload(client, **{"expires_after[seconds]": "3600"}).json()
    assert made["expires_at"] - made["created_at"] == 3600
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert client.get(f"/v1/files/{made['id']}", headers=KEY).status_code == 404
    with store.database.read() as connection:
        assert [row["id"] for row in files.ended(connection)] == [made["id"]]


def create(client, file_id: str, headers: dict = KEY, **fields):
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return client.post("/v1/batches", headers=headers, json=asked | fields)


def test_a_batch_is_made_listed_and_cancelled(openai):
    file = openai.files.create(file=("lines.jsonl", LINES), purpose="batch")
    made = openai.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"name": "论文"}
    )
    assert (made.status, made.input_file_id, made.metadata) == ("validating", file.id, {"name": "论文"})
    assert made.expires_at - made.created_at == 86400 and made.request_counts.total == 0
    assert openai.batches.retrieve(made.id) == made and [one.id for one in openai.batches.list()] == [made.id]
    cancelled = openai.batches.cancel(made.id)
    assert cancelled.status == "cancelling" and openai.batches.cancel(made.id).status == "cancelling"


def test_a_batch_that_has_ended_cannot_be_cancelled(client, store):
    made = create(client, upload(client).json()["id"]).json()["id"]
    with store.database.begin() as connection:
        row = batches.find(connection, None, made)
        assert batches.move(connection, row, "completed")
    answer = client.post(f"/v1/batches/{made}/cancel", headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"input_file_id": None}, "input_file_id"),
    ],
)
def test_what_makes_no_batch_is_refused_by_its_field(client, fields, param):
    answer = create(client, upload(client).json()["id"], **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_a_picture_makes_no_batch(client):
    answer = create(client, upload(client, b"\x89PNG", purpose="vision").json()["id"])
    assert answer.status_code == 400 and "purpose `batch`" in answer.json()["error"]["message"]


def test_the_officials_client_raises_its_own_errors(openai):
    with pytest.raises(APIStatusError) as told:
        openai.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")
    assert told.value.status_code == 404 and json.loads(told.value.response.text)["error"]["param"] == "input_file_id"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=99999", "order=up", f"limit=0{10**6:014}", "limit=1" + "0" * 25]
)
def test_a_page_that_is_none_is_refused(client, query):
    assert client.get(f"/v1/files?{query}", headers=KEY).status_code == 400


def test_a_text_that_a_database_does_not_keep_is_the_clients_fault(service, database, settings, tmp_path):
    """PostgreSQL has no text with U+0000."""
    service.store = store_of(settings.model_copy(update={"files_dir": tmp_path / "files"}), database)
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        service.take_engine(NoEngine(), 1)
        service.readiness.enter(READY)
        statuses = [
            create(client, "file-\0").status_code,
            create(client, upload(client).json()["id"], metadata={"a": "\0"}).status_code,
            *(client.get(path, headers=KEY).status_code for path in ("/v1/files?after=%00", "/v1/files?purpose=%00")),
            *(client.get(path, headers=KEY).status_code for path in ("/v1/files/%00", "/v1/batches/%00")),
        ]
    kept = [404, 200, 200, 200, 404, 404] if database.is_sqlite else [400, 200, 400, 400, 400, 400]
    assert statuses == kept
