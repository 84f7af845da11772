"""What openapi.json says of files and batches is what the routes answer, with what is there and with what is not.

tests/system/test_contract.py asks with made-up data, which finds no file and no batch; here there are some.
"""

import pytest
from schemathesis import openapi
from starlette.testclient import TestClient

from lingbi.accounts.database import DatabaseAway
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.ring import KeyRing
from lingbi.batch import batches, claims, files
from lingbi.batch.lines import Fault, Line
from lingbi.http.app import create_app, routes_of
from lingbi.http.describing.document import describe
from lingbi.http.readiness import READY
from tests.server.conftest import KEY, NoEngine

ADMIN = {"Authorization": "Bearer admin"}
DOCUMENT = describe("model")
SCHEMA = openapi.from_dict(DOCUMENT)
FORM = {"purpose": (None, "batch"), "file": ("lines.jsonl", b"no JSON\n")}


@pytest.fixture
def client(service, store, tmp_path):
    save_keys(tmp_path / "keys", [Key("one", digest(b"secret")), Key("default", digest(b"admin"))])
    service.keys, service.store = KeyRing(tmp_path / "keys"), store
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        service.take_engine(NoEngine(), 1)
        service.readiness.enter(READY)
        yield client


def schema_of(response, path: str, method: str) -> dict:
    """The schema that an answer has by the document, with nothing but what is its own."""
    told = DOCUMENT["paths"][path][method.lower()]["responses"]
    assert str(response.status_code) in told, (method, path, response.status_code)
    contents = told[str(response.status_code)]["content"]
    kind = response.headers["content-type"].split(";")[0]
    assert kind in contents, (method, path, kind)
    return contents[kind]["schema"]


def check_fields(value, schema: dict) -> None:
    """Each object has the fields of its schema, and no others."""
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        (schema,) = (one for one in schema["anyOf"] if (one.get("type") == "null") == (value is None))
        return check_fields(value, schema)
    if isinstance(value, dict) and "properties" in schema:
        assert value.keys() == schema["properties"].keys()
        for name, field in value.items():
            check_fields(field, schema["properties"][name])
    if isinstance(value, list):
        for item in value:
            check_fields(item, schema["items"])
    return None


class Asked:
    """Asks routes by their paths in the document, holds each answer against it, and notes which were asked with success."""

    def __init__(self, client: TestClient) -> None:
        self.client, self.good = client, set()

    def __call__(self, method: str, path: str, status: int = 200, key: dict = KEY, names: tuple = (), **options):
        headers = ADMIN if "/admin/" in path and key is KEY else key
        response = self.client.request(method, path.format(**dict(names)), headers=headers, **options)
        assert response.status_code == status, response.text
        schema = schema_of(response, path, method)
        if "json" in response.headers["content-type"] and "jsonl" not in response.headers["content-type"]:
            response.request.read()  # one that was refused at once was not
            SCHEMA[path][method].validate_response(response)
            check_fields(response.json(), schema)
            self.good |= {(method, path)} if status == 200 else set()
            return response.json()
        self.good.add((method, path))
        return response.content


def run_batch(store, batch_id: str, owner: str) -> None:
    """Have a batch end with a line that was answered and one that was not."""
    with store.database.begin() as connection:
        batch = batches.find(connection, owner, batch_id)
        assert batches.take_reading(connection, batch, "w", is_alive=False)
        batches.add_lines(connection, batch_id, [Line(number, f"id-{number}", "model", 0, 1) for number in (1, 2)])
        assert batches.begin(connection, batch_id, "w", 2)
        claims.sign_on(connection, store.database, "w", "model")
        first, second = claims.claim(connection, store.database, "w", "model", 2)
        assert claims.finish(connection, "w", first, claims.answered(first, "r", 200, {}))
        assert claims.finish(connection, "w", second, claims.unasked("id-2", "file_not_found", "it is gone"))
        assert batches.end(connection, batches.find(connection, owner, batch_id), "completed", life_s=60)


def test_every_route_of_files_and_batches_answers_as_it_is_described(client, service, store):
    ask = Asked(client)
    file = ask("POST", "/v1/files", files=FORM)
    of_file = (("file_id", file["id"]),)
    ask("GET", "/v1/files", params={"limit": 1, "order": "asc", "purpose": "batch"})
    ask("GET", "/v1/files/{file_id}", names=of_file)
    ask("GET", "/v1/files/{file_id}/content", names=of_file)
    asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "metadata": {"name": "论文"}}
    batch = ask("POST", "/v1/batches", json=asked | {"completion_window": "24h"})
    of_batch = (("batch_id", batch["id"]),)
    run_batch(store, batch["id"], "one")
    ended = ask("GET", "/v1/batches/{batch_id}", names=of_batch)
    assert ended["status"] == "completed" and ended["output_file_id"] and ended["error_file_id"]
    ask("GET", "/v1/files/{file_id}/content", names=(("file_id", ended["output_file_id"]),))
    ask("GET", "/v1/files/{file_id}", names=(("file_id", ended["error_file_id"]),))
    failing = ask("POST", "/v1/batches", json=asked)
    with store.database.begin() as connection:
        row = batches.find(connection, "one", failing["id"])
        assert batches.take_reading(connection, row, "w", is_alive=False)
        batches.fail(connection, failing["id"], "w", [Fault("invalid_json_line", "no JSON", 1)])
    for path in ("/v1/batches", "/v1/admin/batches"):
        page = ask("GET", path, params={"limit": 1})
        assert page["has_more"] and page["data"][0]["errors"]["data"][0]["line"] == 1
        ask("GET", path, params={"after": page["last_id"], "limit": 1})
        for rest, kinds in (("/errors", 1), ("", None)):
            told = ask("GET", f"{path}/{{batch_id}}{rest}", names=of_batch)
            assert kinds is None or len(told["data"]) == kinds
    for path in ("/v1/batches", "/v1/admin/batches"):
        other = ask("POST", "/v1/batches", json=asked)["id"]
        ask("POST", f"{path}/{{batch_id}}/cancel", names=(("batch_id", other),))
    ask("GET", "/v1/admin/batches", params={"owner": "one", "status": "completed"})
    ask("DELETE", "/v1/files/{file_id}", names=of_file)
    served = {
        (method, route.path)
        for route in routes_of(service)
        for method in route.methods - {"HEAD"}
        if route.path.startswith(("/v1/files", "/v1/batches", "/v1/admin/batches"))
    }
    assert ask.good == served


REFUSED = [
    ("GET", "/v1/files", 400, {"params": {"limit": 10_001}}),
    ("GET", "/v1/files", 400, {"params": {"order": "up"}}),
    ("POST", "/v1/files", 400, {"json": {}}),
    ("POST", "/v1/files", 413, {"files": FORM | {"file": ("x", b"x" * (1 << 20))}}),
    ("GET", "/v1/files/{file_id}", 404, {}),
    ("DELETE", "/v1/files/{file_id}", 404, {}),
    ("GET", "/v1/files/{file_id}/content", 404, {}),
    ("GET", "/v1/batches", 400, {"params": {"limit": 101}}),
    ("POST", "/v1/batches", 400, {"json": {"endpoint": "/v1/embeddings"}}),
    ("POST", "/v1/batches", 404, {"json": {"input_file_id": "file-x", "endpoint": "/v1/responses"}}),
    ("GET", "/v1/batches/{batch_id}", 404, {}),
    ("GET", "/v1/batches/{batch_id}/errors", 404, {}),
    ("POST", "/v1/batches/{batch_id}/cancel", 404, {}),
    ("POST", "/v1/batches/{batch_id}/cancel", 401, {"key": {}}),
    ("GET", "/v1/admin/batches", 400, {"params": {"status": "x"}}),
    ("GET", "/v1/admin/batches/{batch_id}", 404, {}),
    ("GET", "/v1/admin/batches/{batch_id}/errors", 404, {}),
    ("POST", "/v1/admin/batches/{batch_id}/cancel", 404, {}),
    ("POST", "/v1/admin/batches/{batch_id}/cancel", 403, {"key": {"Authorization": "Bearer secret"}}),
]


@pytest.mark.parametrize(("method", "path", "status", "options"), REFUSED)
def test_every_refusal_is_described(client, monkeypatch, method, path, status, options):
    if status == 413:
        monkeypatch.setattr(files, "held_bytes", lambda *_: 1 << 40)  # the key has no room left
    names = (("file_id", "file-none"), ("batch_id", "batch_none"))
    Asked(client)(method, path, status, names=names, **options)


def test_a_batch_that_has_ended_and_a_database_that_is_away_are_described(client, store, monkeypatch):
    ask = Asked(client)
    file = ask("POST", "/v1/files", files=FORM)["id"]
    batch = ask("POST", "/v1/batches", json={"input_file_id": file, "endpoint": "/v1/completions"})["id"]
    run_batch(store, batch, "one")
    for path in ("/v1/batches", "/v1/admin/batches"):
        ask("POST", f"{path}/{{batch_id}}/cancel", 409, names=(("batch_id", batch),))

    def away():
        raise DatabaseAway("the accounts' database does not answer")

    for what in ("read", "begin"):
        monkeypatch.setattr(store.database, what, away)
    for method, path in ((m, p) for p, item in DOCUMENT["paths"].items() for m in item if "file" in p or "batch" in p):
        options = {"files": FORM} if (method, path) == ("post", "/v1/files") else {}
        if (method, path) == ("post", "/v1/batches"):
            options = {"json": {"input_file_id": file, "endpoint": "/v1/completions"}}
        ask(method.upper(), path, 503, names=(("file_id", file), ("batch_id", batch)), **options)
