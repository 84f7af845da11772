"""scripts/key: what it makes, changes, shows and refuses."""

import json
import re
import shutil
import time

import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.key_file import Key, digest, read_keys, save_keys
from lingbi.batch.store import store_of
from lingbi.cli import key as command
from lingbi.settings import Settings
from tests.server.batch.holdings import answered, of, upload


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A file with the tables; making them takes longer than these tests."""
    file = tmp_path_factory.mktemp("empty") / "accounts.db"
    database = Database(parse_url(f"sqlite:///{file}"))
    database.bring_up_to_date()
    database.engine.dispose()
    return file


@pytest.fixture
def key(tmp_path, monkeypatch, capsys, empty_database):
    """Runs scripts/key: (exit status, output, errors)."""
    (tmp_path / "accounts").mkdir()
    shutil.copy(empty_database, tmp_path / "accounts/accounts.db")
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LINGBI_TIME_ZONE", "Asia/Shanghai")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = command.main(list(arguments))
        return (status, *capsys.readouterr())

    return run


def known(key, name: str) -> dict:
    return next(found for found in json.loads(key("list", "--json")[1]) if found["name"] == name)


def test_a_key_is_printed_once_and_only_its_digest_is_kept(key, tmp_path):
    status, made, _ = key("add", "alice")
    assert status == 0 and re.fullmatch(r"lb-[\w-]{43}\n", made)
    files = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert made.strip().encode() not in files and digest(made.strip().encode()).encode() in files
    assert made.strip() not in key("list", "--json")[1] and not (tmp_path / "keys").exists()


def test_everything_that_a_key_may_do_is_said_at_once(key):
    limits = ("--tokens", "100k/day,2M/month", "--images", "500/day", "--requests", "60/minute", "--concurrency", "4")
    others = (
        "--models",
        "vl-7b,4khd-7b",
        "--until",
        "2066-12-31",
        "--weight",
        "2",
        "--owner",
        "Alice 王",
        "--note",
        "thesis",
    )
    assert key("add", "alice", *limits, *others)[0] == 0
    found = known(key, "alice")
    assert found["limits"] == {
        "tokens": {"day": 100_000, "month": 2_000_000},
        "images": {"day": 500},
        "requests": {"minute": 60},
    }
    assert (found["concurrency"], found["weight"], found["owner"], found["note"]) == (4, 2, "Alice 王", "thesis")
    assert found["models"] == ["internlm-xcomposer2-4khd-7b", "internlm-xcomposer2-vl-7b"]
    assert time.strftime("%Y-%m-%d %H:%M", time.gmtime(found["ends_at"])) == "2066-12-31 16:00", "midnight in Shanghai"
    line = key("list")[1].splitlines()[1]
    assert all(part in line for part in ("2066-12-31", "100k tokens/day", "60 requests/minute", "Alice 王", "active"))


def test_limits_are_changed_one_by_one_and_taken_away(key):
    key("add", "alice", "--tokens", "1k/day,5k/month", "--concurrency", "4", "--until", "2066-01-01", "--admin")
    assert key("limit", "alice", "--tokens", "no-limit/day", "--concurrency", "0", "--until", "never")[0] == 0
    found = known(key, "alice")
    assert (found["limits"], found["concurrency"], found["ends_at"]) == ({"tokens": {"month": 5000}}, 0, None)
    assert key("limit", "alice", "--tokens", "no-limit", "--concurrency", "no-limit", "--models", "all")[0] == 0
    found = known(key, "alice")
    assert (found["limits"], found["concurrency"], found["is_admin"]) == ({}, None, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tokens", "unlimited/day"), "'unlimited' is no whole number.*`no-limit` to take the limit away"),
        (("--tokens", "unlimited"), "'unlimited' is no whole number.*`no-limit`"),
        (("--tokens", "none/day"), "'none' is no whole number"),
        (("--tokens=-5/day",), "'-5' is not between 0 and .*0 allows nothing"),
        (("--tokens", f"{10**30}/day"), "is not between 0 and"),
        (("--tokens", "1.0001k/day"), "no whole number"),
        (("--tokens", "100"), "'100' has no period; write it as in 100/day"),
        (("--tokens", "100/week"), "'week' is no period"),
        (("--concurrency", "many"), "concurrency: 'many' is no whole number"),
        (("--weight", "0"), "weight: '0' is not between 1 and 1000"),
        (("--until", "tomorrow"), "'tomorrow' is no date; write it as in 2026-12-31"),
        (("--until", "2020-01-01"), "'2020-01-01' is past"),
        (("--until", "9999-12-31"), "is no date"),
        (("--models", "none"), "give names with commas, or `all`"),
        (("--group", "nobody"), "there is no group 'nobody'; make it first: group add nobody"),
        (("--group", "a b"), "is no name"),
        (("--owner", "x" * 201), "one line of at most 200 characters"),
        (("--note", "two\nlines"), "one line of at most 500"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_value_and_the_remedy(key, options, told):
    key("add", "alice", "--tokens", "5/day")
    before = known(key, "alice")
    status, _, errors = key("limit", "alice", *options)
    assert status == 2 and re.search(told, errors), errors
    assert known(key, "alice") == before


@pytest.mark.parametrize("name", ["a b", "", "x" * 65, "ui/alice", "阿丽", "a;b"])
def test_a_bad_name_is_refused(key, name):
    status, _, errors = key("add", name)
    assert status == 2 and "is no name; it has 1 to 64 letters" in errors


def test_an_owner_may_be_called_anything(key):
    assert key("add", "alice", "--owner", "'; DROP TABLE keys; --", "--note", "=cmd()")[0] == 0
    assert known(key, "alice")["owner"] == "'; DROP TABLE keys; --"


def test_a_model_that_is_not_published_is_kept_with_a_warning(key):
    status, _, errors = key("add", "alice", "--models", "vl-7b,my-folder")
    assert status == 0 and "no published model is called 'my-folder'" in errors and "vl-7b'" not in errors
    assert known(key, "alice")["models"] == ["internlm-xcomposer2-vl-7b", "my-folder"]


def test_a_name_is_taken_until_its_key_is_revoked_and_then_begins_anew(key):
    first = key("add", "alice", "--tokens", "5/day", "--note", "old")[1]
    status, _, errors = key("add", "alice")
    assert status == 2 and "there is a key alice already; rotate it" in errors
    assert key("remove", "alice")[0] == 0 and "alice" not in key("list")[1] and "alice" in key("list", "--all")[1]
    second = key("add", "alice")[1]
    found = known(key, "alice")
    assert first != second and (found["state"], found["note"], found["limits"]) == ("active", "", {})
    assert [secret["ends_at"] is None for secret in found["secrets"]] == [False, True]


def test_a_revoked_name_begins_anew_without_the_files_of_its_former_holder(key, tmp_path):
    key("add", "alice")
    store = store_of(Settings(state_dir=tmp_path), Database(parse_url(f"sqlite:///{tmp_path}/accounts/accounts.db")))
    answered(store, "alice", upload(store, "alice", b"x"), "it is red")
    key("rotate", "alice")
    key("revoke", "alice")
    assert [len(held) for held in of(store, "alice")] == [2, 1]
    status, made, told = key("add", "alice")
    assert status == 0 and re.fullmatch(r"lb-[\w-]{43}\n", made) and of(store, "alice") == ([], [])
    assert "removed of its former holder: files: 2, batches: 1, results: 1" in told
    key("revoke", "alice")
    assert key("add", "alice")[2] == ""
    store.database.engine.dispose()


def test_rotation_overlaps_as_long_as_it_is_told(key):
    key("add", "alice")
    began = time.time()
    status, made, told = key("rotate", "alice", "--overlap", "2h")
    assert status == 0 and made.startswith("lb-") and "alice was before ends at" in told
    ends = [secret["ends_at"] for secret in known(key, "alice")["secrets"]]
    assert ends[1] is None and 7190 < ends[0] - began < 7210
    assert "has ended" in key("rotate", "alice", "--overlap", "0")[2]
    assert [secret["ends_at"] is None for secret in known(key, "alice")["secrets"]] == [False, False, True]
    for bad in ("-1", "soon", "400d", "1y"):
        assert key("rotate", "alice", f"--overlap={bad}")[0] == 2
    key("revoke", "alice")
    assert "has ended" in key("rotate", "alice")[2]


def test_groups_have_limits_together_and_for_each(key):
    each = ("--each-tokens", "50k/day", "--each-concurrency", "2", "--each-weight", "3")
    assert key("group", "add", "students", "--tokens", "5M/month", "--models", "vl-7b", *each)[0] == 0
    assert "already" in key("group", "add", "students")[2]
    key("add", "bob", "--group", "students")
    key("add", "eve", "--group", "students", "--tokens", "7k/day", "--models", "all", "--concurrency", "9")
    bob, eve = known(key, "bob")["in_force"], known(key, "eve")["in_force"]
    assert (bob["concurrency"], bob["weight"], bob["models"]) == (2, 3, ["internlm-xcomposer2-vl-7b"])
    assert {(limit["of"], limit["most"]) for limit in bob["limits"]} == {("member", 50_000), ("group", 5_000_000)}
    assert {(limit["of"], limit["most"]) for limit in eve["limits"]} == {("key", 7000), ("group", 5_000_000)}
    assert eve["concurrency"] == 9
    (group,) = json.loads(key("group", "list", "--json")[1])
    assert group["keys"] == ["bob", "eve"] and group["members"] == {"tokens": {"day": 50_000}}
    assert "students" in key("group", "list")[1]
    assert key("group", "limit", "students", "--each-tokens", "no-limit", "--note", "2026")[0] == 0
    assert "has 2 keys (bob, eve), which would lose its limits" in key("group", "remove", "students")[2]
    assert key("group", "remove", "students", "--keep-keys")[0] == 0 and known(key, "bob")["group"] is None
    assert key("group", "limit", "students")[0] == 2


def test_keys_of_the_file_are_there_before_any_server_has_started(key, tmp_path):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("alice", digest(b"a"), 4)])
    assert [found["name"] for found in json.loads(key("list", "--json")[1])] == ["default", "alice"]
    assert "there is a key alice already" in key("add", "alice")[2]
    assert key("rotate", "alice")[0] == 0 and known(key, "alice")["concurrency"] == 4
    assert "each host's own" in key("rotate", "default")[2]
    assert [line.name for line in read_keys(tmp_path / "keys")] == ["default", "alice"]


def test_the_last_administrator_stays(key, tmp_path):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine"))])
    for refused in (("revoke", "default"), ("limit", "default", "--no-admin")):
        status, _, errors = key(*refused)
        assert status == 2 and "the last administrator's key; make another first: `add NAME --admin`" in errors
    key("add", "boss", "--admin")
    assert key("revoke", "default")[0] == 0 and known(key, "boss")["is_admin"]


def test_a_host_that_is_gone_can_be_forgotten(key, tmp_path):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("alice", digest(b"a"))])
    host = known(key, "alice")["secrets"][0]["host"]
    assert "no key lies on a host 'nowhere'" in key("forget-host", "nowhere")[2]
    (tmp_path / "keys").unlink()
    assert key("forget-host", host)[0] == 0 and known(key, "alice")["state"] == "no secret"


def test_an_unknown_key_is_said_to_be_unknown(key):
    for action in ("revoke", "remove", "rotate", "limit"):
        status, _, errors = key(action, "nobody")
        assert status == 2 and "there is no key 'nobody'; `list` shows all" in errors


def test_a_database_that_is_away_changes_nothing(key, monkeypatch):
    monkeypatch.setenv("LINGBI_DATABASE_URL", "postgresql://lingbi@127.0.0.1:1/lingbi")
    status, made, errors = key("add", "alice")
    assert (status, made) == (1, "") and "does not answer" in errors
