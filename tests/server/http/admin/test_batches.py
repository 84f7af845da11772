"""/v1/admin/batches: an administrator sees and cancels everybody's batches, and nobody else does."""

import pytest
from starlette.testclient import TestClient

from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.ring import KeyRing
from lingbi.batch import batches, claims
from lingbi.batch.lines import Fault, Line
from lingbi.http.app import create_app
from lingbi.http.readiness import READY
from tests.server.conftest import KEY, NoEngine

PATH, ADMIN = "/v1/admin/batches", {"Authorization": "Bearer admin"}
ROUTES = (
    ("GET", PATH),
    ("GET", f"{PATH}/batch_x"),
    ("GET", f"{PATH}/batch_x/errors"),
    ("POST", f"{PATH}/batch_x/cancel"),
)


@pytest.fixture
def client(service, store, tmp_path):
    """A client of a worker that is still loading its model."""
    save_keys(tmp_path / "keys", [Key("one", digest(b"secret")), Key("default", digest(b"admin"))])
    service.keys, service.store = KeyRing(tmp_path / "keys"), store
    return TestClient(create_app(service), raise_server_exceptions=False)


def made(store, owner: str) -> str:
    """A batch of two lines, of which one failed."""
    columns = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}
    with store.database.begin() as connection:
        batch = batches.create(connection, owner, 60, **columns)
        assert batches.take_reading(connection, batch, "w", is_alive=False)
        batches.add_lines(connection, batch["id"], [Line(n, f"secret-{n}", "m", n, 1) for n in (1, 2)])
        assert batches.begin(connection, batch["id"], "w", 2)
        claims.sign_on(connection, store.database, "w", "m")
        taken = claims.claim(connection, store.database, "w", "m", 100)
        line = next(one for one in taken if one.batch_id == batch["id"])
        assert claims.finish(connection, "w", line, claims.unasked(line.custom_id, "file_not_found", "secret words"))
    return batch["id"]


def test_all_batches_with_their_owners(client, store):
    first, second = made(store, "one"), made(store, "ui/alice")
    found = client.get(PATH, headers=ADMIN).json()
    assert [(one["id"], one["owner"]) for one in found["data"]] == [(second, "ui/alice"), (first, "one")]
    assert found["data"][0]["request_counts"] == {"total": 2, "completed": 0, "failed": 1} and not found["has_more"]
    page = client.get(f"{PATH}?limit=1", headers=ADMIN).json()
    assert page["has_more"] and page["last_id"] == second
    assert client.get(f"{PATH}?limit=1&after={second}", headers=ADMIN).json()["data"][0]["id"] == first
    assert [one["id"] for one in client.get(f"{PATH}?owner=one", headers=ADMIN).json()["data"]] == [first]
    assert client.get(f"{PATH}?status=completed", headers=ADMIN).json()["data"] == []
    assert len(client.get(f"{PATH}?status=in_progress", headers=ADMIN).json()["data"]) == 2
    bad = client.get(f"{PATH}?status=x", headers=ADMIN)
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "status")


def test_one_is_shown_without_its_owners_words_and_cancelled(client, store, service):
    batch = made(store, "one")
    looks = []
    service.look_at_batches = lambda: looks.append(1)
    client = TestClient(create_app(service), raise_server_exceptions=False)
    assert client.get(f"{PATH}/{batch}", headers=ADMIN).json()["owner"] == "one"
    errors = client.get(f"{PATH}/{batch}/errors", headers=ADMIN)
    assert errors.json()["data"] == [{"status_code": None, "code": "file_not_found", "count": 1}]
    assert "secret" not in errors.text
    assert client.post(f"{PATH}/{batch}/cancel", headers=ADMIN).json()["status"] == "cancelling" and looks
    with store.database.begin() as connection:
        batches.move(connection, batches.find(connection, None, batch), "cancelled")
    assert client.post(f"{PATH}/{batch}/cancel", headers=ADMIN).status_code == 409
    assert client.get(f"{PATH}/batch_x", headers=ADMIN).status_code == 404


def refused(store, owner: str) -> str:
    """A batch with words of its owner in all that tells of it: its input was no batch."""
    fault = Fault("duplicate_custom_id", "custom_id 'secret-1' stands in an earlier line too", 2, "secret-param")
    columns = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}
    metadata = batches.metadata_of({"name": "secret-thesis.jsonl"})
    with store.database.begin() as connection:
        batch = batches.create(connection, owner, 60, metadata=metadata, **columns)
        assert batches.take_reading(connection, batch, "w", is_alive=False)
        batches.fail(connection, batch["id"], "w", [fault])
    return batch["id"]


def test_why_an_input_was_refused_is_told_without_its_owners_words(client, store):
    others, own = refused(store, "one"), refused(store, "default")
    for path in (PATH, f"{PATH}/{others}"):
        told = client.get(path, headers=ADMIN, params={"owner": "one"})
        assert "secret" not in told.text and "duplicate_custom_id" in told.text
    batch = client.get(f"{PATH}/{others}", headers=ADMIN).json()
    (fault,) = batch["errors"]["data"]
    assert fault == {"code": "duplicate_custom_id", "message": None, "line": 2, "param": None}
    assert batch["metadata"] is None
    mine = client.get(f"{PATH}/{own}", headers=ADMIN).json()
    assert mine["metadata"] == {"name": "secret-thesis.jsonl"} and "secret-1" in mine["errors"]["data"][0]["message"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_else_sees_them(client, method, path):
    answer = client.request(method, path, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    assert client.request(method, path).status_code == 401


def test_an_owner_sees_what_lines_failed_of(client, store, service):
    mine, others = made(store, "one"), made(store, "two")
    service.take_engine(NoEngine(), 1)
    service.readiness.enter(READY)
    (kind,) = client.get(f"/v1/batches/{mine}/errors", headers=KEY).json()["data"]
    assert kind == {
        "status_code": None,
        "code": "file_not_found",
        "count": 1,
        "custom_id": "secret-1",
        "message": "secret words",
    }
    assert client.get(f"/v1/batches/{others}/errors", headers=KEY).status_code == 404
