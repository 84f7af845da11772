"""GET /v1/admin/usage: administrators see what was counted, others do not, and what cannot be asked is refused."""

from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.ring import KeyRing
from lingbi.http.admin import usage as admin
from tests.server.accounts.usage.rows import entries, fill
from tests.server.conftest import KEY

PATH, UTC = "/v1/admin/usage", ZoneInfo("UTC")
ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture
def found():
    return entries(UTC)


@pytest.fixture
def asked(ready, service, tmp_path, found):
    """Asks the API with an administrator's key, of whom the database knows."""
    save_keys(tmp_path / "keys", [Key("one", digest(b"secret")), Key("default", digest(b"admin"))])
    service.keys = KeyRing(tmp_path / "keys")
    service.database = fill(parse_url(f"sqlite:///{tmp_path}/accounts.db"), UTC, found)
    yield lambda headers=ADMIN, **parameters: ready.get(PATH, headers=headers, params=parameters)
    service.database.engine.dispose()


def test_an_administrator_sees_who_used_what(asked, found):
    answer = asked(by="key,model", since="2026-02", until="2026-03").json()
    assert (answer["object"], answer["time_zone"], answer["has_more"]) == ("list", "UTC", False)
    mine = [entry for entry in found if entry.key == "a" and entry.model == "demo"]
    mine = [entry for entry in mine if 1_769_904_000 <= entry.at < 1_775_001_600]
    row = next(row for row in answer["data"] if (row["key"], row["model"]) == ("a", "demo"))
    assert row["requests"] == sum(entry.counts.requests for entry in mine) > 0
    assert row["gpu_seconds"] == sum(entry.counts.gpu_ms for entry in mine) / 1000
    assert "day" not in row and "gpu_ms" not in row


def test_nobody_else_does(asked):
    answer = asked(headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    assert "one" in answer.json()["error"]["message"]
    assert asked(headers={}).status_code == 401


def test_of_some_only_and_the_top(asked, found):
    rows = asked(by="status", owner="李").json()["data"]
    assert sum(row["requests"] for row in rows) == sum(
        entry.counts.requests for entry in found if entry.key in ("a", "b")
    )
    assert len(asked(top="2").json()["data"]) == 2


def test_a_long_report_is_cut_and_says_so(asked, monkeypatch):
    monkeypatch.setattr(admin, "MOST_ROWS", 3)
    answer = asked(by="day").json()
    assert (len(answer["data"]), answer["has_more"]) == (3, True)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"by": "colour"}, "by"),
        ({"since": "yesterday"}, "since"),
        ({"until": "2026-13"}, "until"),
        ({"since": "2026-02", "until": "2026-01"}, "since"),
        ({"status": "good"}, "status"),
        ({"status": ""}, "status"),
        ({"status": "9" * 30}, "status"),
        ({"model": "a\0b"}, "model"),
        ({"since": "0001-01-01", "until": "0001-01-01"}, "since"),
        ({"top": "-1"}, "top"),
        ({"top": "0"}, "top"),
        ({"top": "９"}, "top"),
        ({"sort": "key"}, "sort"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(asked, parameters, param):
    answer = asked(**parameters)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_database_that_is_away_is_503(asked, service, tmp_path):
    service.database = Database(parse_url("postgresql://lingbi@127.0.0.1:9/lingbi"))
    answer = asked()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_away")
    assert answer.headers["retry-after"]
