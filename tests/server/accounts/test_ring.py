"""The keys of a worker: they follow the database and the key file, and serve while the database is away."""

import contextlib
import json
import logging
import os
import stat
import time

import pytest

from lingbi.accounts.database import Database, now_of, parse_url
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.keys.changes import Change, add_key, change_key, revoke_key, rotate_key
from lingbi.accounts.keys.groups import add_group, remove_group
from lingbi.accounts.ring import KeyRing, Source

DAY_S = 86_400.0


@pytest.fixture
def ring(tmp_path, database):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("ui", digest(b"page"), 64)])
    return ring_of(tmp_path, database)


def ring_of(folder, database, host="here") -> KeyRing:
    return KeyRing(folder / "keys", Source(database, host, folder / "keys.json"))


def test_what_a_key_file_holds_is_taken_over(ring):
    assert ring.find(b"mine").is_admin and not ring.find(b"page").is_admin
    assert (ring.find(b"page").kind, ring.find(b"page").concurrency) == ("page", 64)
    assert ring.find(b"") is None and ring.account("ui") == ring.find(b"page")


def test_a_change_is_there_at_the_next_look(ring, database):
    secret = add_key(database, "alice", Change({"models": "vl-7b", "concurrency": 2})).encode()
    assert ring.find(secret) is None
    ring.look()
    assert ring.find(secret).models == {"vl-7b"} and ring.find(secret).concurrency == 2
    change_key(database, "alice", Change({"models": None}))
    fresh = rotate_key(database, "alice", DAY_S).encode()
    ring.look()
    assert time.time() - 60 < ring.find(secret).ends_at - DAY_S <= time.time() + 1 and ring.find(fresh).ends_at is None
    revoke_key(database, "alice")
    ring.look()
    now = time.time()
    assert ring.find(secret).has_ended(now) and ring.find(fresh).has_ended(now)


def test_a_key_ends_at_the_same_moment_whatever_the_clock_of_the_host_says(tmp_path, postgres, wrong_host):
    database = Database(postgres.url)
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine"))])
    ring = ring_of(tmp_path, database)
    with wrong_host():
        first = add_key(database, "alice", Change()).encode()
        second = rotate_key(database, "alice", DAY_S).encode()
        third = rotate_key(database, "alice", 0).encode()
        add_group(database, "old", Change())
    for host in (contextlib.nullcontext, wrong_host):
        with host():
            ring.look()
            now = ring.clock.now()
            assert [ring.find(key).has_ended(now) for key in (first, second, third)] == [True, True, False]
    with database.read() as connection:
        assert abs(ring.records.keys["alice"].created_at - now_of(connection)) < 60
        assert all(abs(secret.created_at - now_of(connection)) < 60 for secret in ring.records.secrets)
    change_key(database, "alice", Change({"group_name": "old", "ends_at": time.time() - 1}))
    with wrong_host():
        assert remove_group(database, "old", keep_keys=False) == 1  # its only key has ended by the clock of all
    database.engine.dispose()


def test_nothing_is_read_again_while_nothing_changes(ring):
    served = ring.keys
    ring.look()
    assert ring.keys is served


def test_a_worker_that_runs_follows_within_seconds(ring, database):
    ring.start()
    try:
        began = time.monotonic()
        secret = add_key(database, "alice", Change()).encode()
        while not ring.find(secret):
            time.sleep(0.02)
            assert time.monotonic() - began < 20
    finally:
        ring.stop()


def test_a_key_that_leaves_the_file_ends_and_the_file_of_another_host_ends_none(tmp_path, ring, database):
    (tmp_path / "there").mkdir()
    save_keys(tmp_path / "there/keys", [Key("default", digest(b"theirs")), Key("alice", digest(b"a"))])
    other = ring_of(tmp_path / "there", database, "there")
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("alice", digest(b"a"))])
    ring.look()
    other.look()
    assert all(known.find(key).name for known in (ring, other) for key in (b"mine", b"theirs", b"a"))
    assert ring.find(b"page") is None and other.find(b"page") is None
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine"))])
    ring.look()
    assert ring.find(b"a"), "it is still in the other host's file"
    save_keys(tmp_path / "there/keys", [Key("default", digest(b"theirs"))])
    other.look()
    ring.look()
    assert ring.find(b"a") is None and other.find(b"a") is None


def test_what_was_ended_by_command_stays_ended_whatever_a_file_says(tmp_path, ring, database):
    save_keys(tmp_path / "keys", [*ring._lines, Key("alice", digest(b"a")), Key("bob", digest(b"b"))])
    ring.look()
    revoke_key(database, "alice")
    rotate_key(database, "bob", 0)
    save_keys(tmp_path / "keys", [*ring._lines, Key("alice2", digest(b"c"))])
    (tmp_path / "there").mkdir()
    save_keys(tmp_path / "there/keys", [Key("alice", digest(b"another of alice")), Key("bob", digest(b"b"))])
    other, now = ring_of(tmp_path / "there", database, "there"), time.time()
    for known in (ring, other):
        known.look()
        assert known.find(b"a").has_ended(now) and known.find(b"b").has_ended(now)
        assert known.find(b"another of alice") is None and known.find(b"c")


def test_a_file_that_vanished_or_broke_changes_nothing_and_an_empty_one_removes_its_keys(tmp_path, ring, caplog):
    os.unlink(ring.file)
    ring.look()
    ring.look()
    (line,) = (record.message for record in caplog.records if record.levelname == "ERROR")
    assert str(ring.file) in line and "gone" in line and ring.find(b"mine")
    ring.file.write_text("broken")
    ring.look()
    assert ring.find(b"mine")
    ring.file.write_text("# nobody\n")
    ring.look()
    assert ring.find(b"mine") is None and "none of its keys is let in" in caplog.text
    save_keys(ring.file, [Key("default", digest(b"mine"))])
    ring.look()
    assert ring.find(b"mine").is_admin


def test_the_copy_serves_while_the_database_is_away_also_at_a_start(tmp_path, postgres, caplog):
    caplog.set_level(logging.INFO)
    database = Database(postgres.url)
    database.bring_up_to_date()
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("old", digest(b"old"))])
    ring = ring_of(tmp_path, database)
    secret = add_key(database, "alice", Change({"concurrency": 3})).encode()
    ring.look()
    copy = tmp_path / "keys.json"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600 and secret not in copy.read_bytes()
    postgres.server.stop()
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine")), Key("new", digest(b"new"))])
    for known in (ring, ring_of(tmp_path, Database(postgres.url))):
        known.look()
        assert known.find(secret).concurrency == 3 and known.find(b"mine") and known.find(b"new")
        assert known.find(b"old") is None, "a line taken out of the file counts without the database"
    assert "keys stay as they were until it is back" in caplog.text
    postgres.server.start()
    ring.look()
    revoke_key(database, "alice")
    ring.look()
    assert ring.find(secret).is_revoked and ring.find(b"new") and "answers again" in caplog.text
    database.engine.dispose()


def test_without_database_and_copy_the_key_file_serves(tmp_path, caplog):
    save_keys(tmp_path / "keys", [Key("default", digest(b"mine"))])
    (tmp_path / "keys.json").write_text('{"revision": 1}')
    away = Database(parse_url("postgresql://lingbi@127.0.0.1:1/lingbi"))
    assert ring_of(tmp_path, away).find(b"mine").is_admin
    assert "cannot be used: 'groups'" in caplog.text


def test_a_copy_has_what_the_database_has(tmp_path, ring, database):
    add_key(database, "alice", Change({"owner": "Alice"}, {("tokens", "day"): 5}))
    ring.look()
    away = Database(parse_url("postgresql://lingbi@127.0.0.1:1/lingbi"))
    assert ring_of(tmp_path, away).records == ring.records
    assert json.loads((tmp_path / "keys.json").read_text())["limits"][0]["most"] == 5


def test_a_thousand_keys_are_found_and_read_fast(tmp_path, database):
    lines = [Key(f"key-{number}", digest(b"%d" % number)) for number in range(1000)]
    save_keys(tmp_path / "keys", lines)
    began = time.perf_counter()
    ring = ring_of(tmp_path, database)
    taken_s, began = time.perf_counter() - began, time.thread_time()
    for number in range(1000):
        assert ring.find(b"%d" % number).name == f"key-{number}"
    found_s, began = time.thread_time() - began, time.perf_counter()
    add_key(database, "one-more", Change())
    ring.look()
    read_s = time.perf_counter() - began
    print(f"taken over {taken_s:.2f} s, found {found_s * 1000:.1f} µs each, read {read_s:.3f} s")
    assert taken_s < 20 and found_s < 0.1 and read_s < 5
