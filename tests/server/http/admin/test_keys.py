"""/v1/admin: keys and groups as administrators change them, over HTTP."""

import logging
import time

import pytest
from starlette.testclient import TestClient

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.keys.changes import Change, bump, change_key
from lingbi.accounts.ring import KeyRing, Source
from lingbi.accounts.tables import keys
from lingbi.batch.store import store_of
from lingbi.heartbeat import Vitals
from lingbi.http.app import create_app
from lingbi.http.metrics import Metrics
from lingbi.http.readiness import Readiness
from lingbi.http.service import Service
from lingbi.settings import Settings
from tests.server.batch.holdings import answered, of, upload

KEYS, GROUPS = "/v1/admin/keys", "/v1/admin/groups"


@pytest.fixture
def service(tmp_path):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("ui", digest(b"page"), 64)])
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    ring = KeyRing(tmp_path / "keys", Source(database, "here", tmp_path / "keys.json"))
    yield Service(Settings(), Readiness("model", "cpu", "a test"), ring, Metrics(), Vitals())
    database.engine.dispose()


@pytest.fixture
def admin(service):
    """A client with the operator's key, of a worker that is still loading its model."""
    return TestClient(create_app(service), raise_server_exceptions=False, headers={"Authorization": "Bearer mine"})


@pytest.fixture
def store(service, tmp_path):
    return store_of(Settings(state_dir=tmp_path), service.keys.source.database)


def made(admin, name: str, **fields) -> str:
    answer = admin.post(KEYS, json={"name": name} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["key"]


def refused(answer) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def test_a_key_is_made_shown_once_and_serves_at_once(admin, service, caplog):
    caplog.set_level(logging.INFO)
    limits = {"tokens": {"day": 100_000, "month": "2M"}}
    answer = admin.post(KEYS, json={"name": "alice", "owner": "Alice", "limits": limits, "models": ["vl-7b"]})
    key = answer.json()["key"]
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    assert service.keys.find(key.encode()).models == {"internlm-xcomposer2-vl-7b"}
    told = admin.get(f"{KEYS}/alice")
    assert told.json()["limits"] == {"tokens": {"day": 100_000, "month": 2_000_000}} and key not in told.text
    assert key not in admin.get(KEYS).text and key not in caplog.text
    assert "the administrator default: made the key 'alice'" in caplog.text


def test_all_keys_are_listed_and_those_of_a_group(admin):
    admin.post(GROUPS, json={"name": "lab"})
    made(admin, "alice", group="lab")
    assert [key["name"] for key in admin.get(KEYS).json()["data"]] == ["default", "ui", "alice"]
    assert [key["name"] for key in admin.get(f"{KEYS}?group=lab").json()["data"]] == ["alice"]
    assert [key["name"] for key in admin.get(f"{KEYS}?limit=1").json()["data"]] == ["default"]
    for limit in ("0", "000000001000000"):
        assert refused(admin.get(f"{KEYS}?limit={limit}"))[:2] == (400, "invalid_value")


def test_what_is_left_out_stays_and_null_takes_away(admin, service):
    key = made(admin, "alice", concurrency=3, ends_at="2066-12-31", limits={"tokens": {"day": 5, "month": 9}})
    changed = admin.patch(f"{KEYS}/alice", json={"limits": {"tokens": {"day": None}}, "note": "thesis"}).json()
    assert (changed["concurrency"], changed["note"], changed["limits"]) == (3, "thesis", {"tokens": {"month": 9}})
    changed = admin.patch(f"{KEYS}/alice", json={"concurrency": None, "ends_at": None}).json()
    assert (changed["concurrency"], changed["ends_at"], changed["note"]) == (None, None, "thesis")
    assert service.keys.find(key.encode()).ends_at is None


def test_an_end_that_is_past_may_be_sent_again_unchanged(admin, service):
    key = made(admin, "alice")
    now = time.time()
    change_key(service.keys.source.database, "alice", Change({"ends_at": now - 1}))
    service.keys.look()
    ends_at = admin.get(f"{KEYS}/alice").json()["ends_at"]
    told = admin.patch(f"{KEYS}/alice", json={"ends_at": ends_at, "note": "x"}).json()
    assert (told["state"], told["note"]) == ("ended", "x")
    assert refused(admin.get(KEYS, headers={"Authorization": f"Bearer {key}"}))[:2] == (401, "invalid_api_key")
    assert refused(admin.patch(f"{KEYS}/alice", json={"ends_at": 5}))[:2] == (400, "invalid_value")


def test_rotation_and_end(admin, service):
    first = made(admin, "alice").encode()
    second = admin.post(f"{KEYS}/alice/rotate").json()["key"].encode()
    find = service.keys.find
    assert 86_000 < find(first).ends_at - time.time() < 86_401 and find(second).ends_at is None
    third = admin.post(f"{KEYS}/alice/rotate", json={"overlap_s": 0}).json()["key"].encode()
    assert find(first).has_ended(time.time()) and find(second).has_ended(time.time())
    assert admin.post(f"{KEYS}/alice/revoke").json()["state"] == "revoked" and find(third).is_revoked
    assert refused(admin.post(f"{KEYS}/alice/rotate"))[:2] == (409, "conflict")
    assert refused(admin.post(f"{KEYS}/default/revoke"))[2].startswith("this is the last administrator's key")
    assert refused(admin.post(f"{KEYS}/default/rotate"))[0] == 409


def test_a_group_is_made_changed_and_removed(admin, service):
    group = {"name": "lab", "concurrency": 8, "member_concurrency": 2, "members": {"tokens": {"day": 50}}}
    assert admin.post(GROUPS, json=group).json()["members"] == {"tokens": {"day": 50}}
    assert refused(admin.post(GROUPS, json=group))[:2] == (409, "conflict")
    key = made(admin, "alice", group="lab").encode()
    assert (service.keys.find(key).concurrency, service.keys.find(key).group_concurrency) == (2, 8)
    changed = admin.patch(
        f"{GROUPS}/lab", json={"limits": {"images": {"month": 0}}, "members": {"tokens": {"day": None}}}
    )
    assert changed.json()["limits"] == {"images": {"month": 0}} and changed.json()["members"] == {}
    assert [(limit.subject_kind, limit.most) for limit in service.keys.find(key).limits] == [("group", 0)]
    assert refused(admin.delete(f"{GROUPS}/lab"))[:2] == (409, "conflict")
    assert admin.delete(f"{GROUPS}/lab?keep_keys=true").json() == {"name": "lab", "keys": 1}
    assert admin.get(GROUPS).json() == {"object": "list", "data": []} and service.keys.find(key).group is None


@pytest.mark.parametrize(
    ("models", "kept", "unpublished"),
    [
        (["all"], None, []),
        ([" All "], None, []),
        (["vl-7b", "my-folder"], ["internlm-xcomposer2-vl-7b", "my-folder"], ["my-folder"]),
        (["all", "vl-7b"], ["all", "internlm-xcomposer2-vl-7b"], ["all"]),
        ([], [], []),
        (None, None, []),
    ],
)
def test_all_models_are_meant_in_a_list_too_and_slips_are_told(admin, service, models, kept, unpublished):
    key = made(admin, "alice", models=["vl-7b"]).encode()
    admin.post(GROUPS, json={"name": "lab", "models": ["vl-7b"]})
    for path in (f"{KEYS}/alice", f"{GROUPS}/lab"):
        told = admin.patch(path, json={"models": models})
        assert (told.json()["models"], told.json()["unpublished_models"]) == (kept, unpublished), told.text
        listed = admin.get(path.rpartition("/")[0]).json()["data"][-1]
        assert listed["unpublished_models"] == admin.get(path).json()["unpublished_models"] == unpublished
    assert service.keys.find(key).may_use("another") == (kept is None)


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"limits": {"tokens": {"day": -1}}}, "limits.tokens.day", "-1 is not between 0 and"),
        ({"limits": {"tokens": {"day": 10**30}}}, None, ""),
        ({"limits": {"tokens": {"day": "unlimited"}}}, "limits.tokens.day", "'unlimited' is no whole number"),
        ({"limits": {"tokens": {"week": 1}}}, None, "must be 'minute', 'day' or 'month'"),
        ({"limits": {"words": {"day": 1}}}, None, "must be 'requests', 'tokens' or 'images'"),
        ({"concurrency": "4"}, "concurrency", "must be a whole number"),
        ({"concurrency": True}, "concurrency", "must be a whole number"),
        ({"weight": 0}, "weight", "0 is not between 1 and 1000"),
        ({"ends_at": "soon"}, "ends_at", "ends_at: 'soon' is no date"),
        ({"models": ["none"]}, "models", "give names with commas, or `all`"),
        ({"group": "nobody"}, "group", "there is no group 'nobody'"),
        ({"owner": "a\u0000b"}, "owner", "cannot be kept"),
        ({"owner": None}, "owner", "must be a string"),
        ({"colour": "red"}, "colour", ""),
        ([], None, "must be an object"),
    ],
)
def test_what_cannot_be_used_is_a_400_that_names_it(admin, body, param, told):
    made(admin, "alice")
    answer = admin.patch(f"{KEYS}/alice", json=body)
    assert refused(answer)[:2] == (400, "invalid_value") and told in answer.json()["error"]["message"], answer.text
    assert param is None or answer.json()["error"]["param"] == param
    assert refused(admin.patch(f"{KEYS}/alice", content=b"{"))[0] == 400


@pytest.mark.parametrize("name", ["", "a b", "ui/alice", "x" * 65, "a\n"])
def test_a_bad_name_is_a_400(admin, name):
    assert refused(admin.post(KEYS, json={"name": name}))[:2] == (400, "invalid_value")
    assert refused(admin.post(GROUPS, json={"name": name}))[:2] == (400, "invalid_value")


def test_nobody_else_may(admin, service):
    key = made(admin, "alice")
    for bearer in (key, "page"):
        others = {"Authorization": f"Bearer {bearer}"}
        for method, path in (("GET", KEYS), ("POST", KEYS), ("GET", GROUPS), ("PATCH", f"{KEYS}/alice")):
            answer = refused(admin.request(method, path, headers=others))
            assert answer[:2] == (403, "permission_denied") and "--admin" in answer[2]
    assert refused(admin.get(KEYS, headers={"Authorization": ""}))[:2] == (401, "invalid_api_key")
    admin.patch(f"{KEYS}/alice", json={"is_admin": True})
    assert admin.get(KEYS, headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_visitors_account_has_a_slash_in_its_name(admin, service):
    with service.keys.source.database.begin() as connection:
        connection.execute(keys.insert().values(name="ui/alice", kind="visitor", created_at=1.0))
    for name in ("ui/alice", "ui%2Falice"):
        assert admin.patch(f"{KEYS}/{name}", json={"concurrency": 1}).json()["state"] == "active"
    assert admin.post(f"{KEYS}/ui%2Falice/revoke").json()["state"] == "revoked"


@pytest.mark.parametrize("ended", [{"revoked_at": 2.0}, {"ends_at": 2.0}])
def test_a_visitor_whose_account_has_ended_is_told_apart_from_the_pages_key(admin, service, ended):
    with service.keys.source.database.begin() as connection:
        connection.execute(keys.insert().values(name="ui/alice", kind="visitor", created_at=1.0, **ended))
        bump(connection)
    service.keys.look()
    page = {"Authorization": "Bearer page", "X-Lingbi-Visitor": "alice"}
    answer = admin.get("/v1/usage", headers=page)
    status, code, message = refused(answer)
    assert (status, code) == (401, "visitor_ended") and "ui/alice" in message and answer.headers["www-authenticate"]
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert refused(admin.get("/v1/usage", headers=page | {"X-Lingbi-Visitor": "bob"}))[1] != "visitor_ended"
    assert admin.patch(f"{KEYS}/ui%2Falice", json={"ends_at": "never"}).json()["state"] == "active"
    service.keys.look()
    assert refused(admin.get("/v1/usage", headers=page))[1] != "visitor_ended", "another end lets the visitor in again"
    assert admin.post(f"{KEYS}/ui/revoke").status_code == 200
    assert refused(admin.get("/v1/usage", headers=page))[:2] == (401, "invalid_api_key"), "it is the page's key now"


def test_the_unknown_is_a_404_and_a_key_twice_a_409(admin):
    made(admin, "alice")
    assert refused(admin.post(KEYS, json={"name": "alice"}))[:2] == (409, "conflict")
    for method, path in (
        ("GET", "keys/bob"),
        ("PATCH", "keys/bob"),
        ("POST", "keys/bob/revoke"),
        ("GET", "groups/lab"),
    ):
        assert refused(admin.request(method, f"/v1/admin/{path}"))[:2] == (404, "not_found")


def test_a_database_that_is_away_is_a_503(tmp_path):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine"))])
    away = Database(parse_url("postgresql://lingbi@127.0.0.1:1/lingbi"))
    ring = KeyRing(tmp_path / "keys", Source(away, "here", tmp_path / "keys.json"))
    service = Service(Settings(), Readiness("model", "cpu", "a test"), ring, Metrics(), Vitals())
    client = TestClient(create_app(service), raise_server_exceptions=False, headers={"Authorization": "Bearer mine"})
    for answer in (client.get(KEYS), client.post(KEYS, json={"name": "alice"})):
        assert refused(answer)[:2] == (503, "database_away") and answer.headers["retry-after"]


def test_a_revoked_name_begins_anew_without_the_files_of_its_former_holder(admin, store, caplog):
    caplog.set_level(logging.INFO)
    made(admin, "alice")
    answered(store, "alice", upload(store, "alice", b"x"), "it is red")
    assert admin.post(f"{KEYS}/alice/rotate").status_code == 200 and [len(held) for held in of(store, "alice")] == [
        2,
        1,
    ]
    assert admin.post(f"{KEYS}/alice/revoke").status_code == 200
    made(admin, "alice")
    assert of(store, "alice") == ([], [])
    assert "removed of the former holder of the key alice: files: 2, batches: 1, results: 1" in caplog.text
