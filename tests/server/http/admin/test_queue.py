"""GET /v1/admin/queue: how full a worker is, for administrators."""

import pytest

from lingbi.accounts.facts import KeyFacts
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.ring import KeyRing
from lingbi.http.readiness import READY
from tests.server.conftest import KEY

PATH, ADMIN = "/v1/admin/queue", {"Authorization": "Bearer admin"}


@pytest.fixture
def keyed(service, tmp_path):
    save_keys(tmp_path / "keys", [Key("one", digest(b"secret")), Key("default", digest(b"admin"))])
    service.keys = KeyRing(tmp_path / "keys")


def test_an_administrator_sees_who_has_how_many_under_way(keyed, ready, service):
    for name in ("a", "b", "a"):
        service.admission.enter(KeyFacts(name))
    service.admission.leave(KeyFacts("b"))
    service.running_lines = lambda: 7
    found = ready.get(PATH, headers=ADMIN).json()
    assert (found["phase"], found["running"], found["waiting"]) == (READY, 2, 0)
    assert (
        found["batch_lines"] == 7
        and found["keys"] == [{"key": "a", "requests": 2}]
        and found["limit"] == service.admission.limit
    )


def test_nobody_else_does_and_a_worker_that_loads_answers_too(keyed, client, service):
    answer = client.get(PATH, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    assert client.get(PATH).status_code == 401
    found = client.get(PATH, headers=ADMIN).json()
    assert found["phase"] != READY and found["running"] == 0
