"""Changes of keys by several at once, and what is decided of a host's key file."""

import multiprocessing
import time

import pytest

from lingbi.accounts.database import Database
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.key_file import Key
from lingbi.accounts.keys.changes import Change, Exists, add_key, change_key, read, rotate_key
from lingbi.accounts.keys.forms import keys_form
from lingbi.accounts.keys.groups import add_group
from lingbi.accounts.keys.records import FILE, Account, Group, Records, Secret, from_data, to_data
from lingbi.accounts.keys.takeover import applied, decide, take_over
from lingbi.accounts.keys.terms import BadTerm, count_of, end_of, overlap_of
from lingbi.accounts.opening import zone_of
from lingbi.settings import Settings

HERE, THERE = "here", "there"


def at_once(database: Database, *works) -> list[int]:
    """Exit statuses of processes that do this at the same time, each with connections of its own."""
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(len(works))
    database.engine.dispose()

    def work(one) -> None:
        together.wait(30)
        one(Database(database.url))

    several = [fork.Process(target=work, args=(one,)) for one in works]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
    return [process.exitcode for process in several]


def test_processes_that_change_keys_at_once_lose_nothing(database):
    add_key(database, "shared", Change())
    before = read(database).revision

    def many(number: int):
        def work(own: Database) -> None:
            for turn in range(5):
                add_key(own, f"key-{number}-{turn}", Change(limits={("tokens", "day"): turn}))
                change_key(own, "shared", Change(limits={("tokens", "day"): number}))
                rotate_key(own, "shared", 0)

        return work

    assert at_once(database, many(1), many(2)) == [0, 0]
    found = read(database)
    assert len(found.keys) == 11 and found.revision == before + 30
    alive = [secret for secret in found.secrets if secret.key == "shared" and secret.ends_at is None]
    assert len(alive) == 1 and len([limit for limit in found.limits if limit.subject == "shared"]) == 1


def test_of_two_that_make_the_same_key_one_is_told(database):
    def work(own: Database) -> None:
        try:
            add_key(own, "alice", Change())
        except Exists:
            raise SystemExit(7) from None

    assert sorted(at_once(database, work, work)) == [0, 7]
    assert len(read(database).secrets) == 1


def test_workers_that_take_over_the_same_file_at_once_take_it_once(database):
    lines = [Key(f"key-{number}", f"{number:064x}") for number in range(50)]
    assert at_once(database, *[lambda own: take_over(own, lines, HERE)] * 3) == [0] * 3
    found = read(database)
    assert len(found.keys) == len(found.secrets) == 50 and found.revision == 1


def test_a_thousand_keys_are_listed_in_no_time(database):
    take_over(database, [Key(f"key-{number}", f"{number:064x}") for number in range(1000)], HERE)
    began = time.thread_time()
    listed = keys_form(read(database), time.time())
    seconds = time.thread_time() - began
    print(f"1000 keys listed in {seconds:.3f} s")
    assert len(listed) == 1000 and seconds < 1


def records(*secrets: Secret, **keys: Account) -> Records:
    return Records(1, {}, keys, secrets)


@pytest.mark.parametrize(
    ("known", "lines", "new", "gone"),
    [
        (records(), [Key("a", "1")], ["1"], []),
        (records(Secret("1", "a", FILE, HERE), a=Account("a")), [Key("a", "1")], [], []),
        (records(Secret("1", "a", FILE, HERE), a=Account("a")), [Key("a", "2")], ["2"], ["1"]),
        (records(Secret("1", "a", FILE, HERE), a=Account("a")), [], [], ["1"]),
        (records(Secret("1", "a", FILE, THERE), a=Account("a")), [], [], []),
        (records(Secret("1", "a", FILE, THERE), a=Account("a")), [Key("a", "1")], ["1"], []),
        (records(Secret("1", "a"), a=Account("a")), [Key("a", "2")], ["2"], []),
        (records(Secret("1", "a", ends_at=5.0), a=Account("a")), [Key("a", "1")], [], []),
        (records(Secret("1", "a", FILE, HERE, ends_at=5.0), a=Account("a")), [], [], []),
        (records(a=Account("a", revoked_at=5.0)), [Key("a", "2")], [], []),
        (records(Secret("1", "a"), a=Account("a")), [Key("b", "1")], [], []),
        (records(Secret("1", "a", FILE, HERE), a=Account("a")), [Key("b", "1")], ["1"], ["1"]),
        (records(Secret("1", "a", FILE, HERE), Secret("1", "a", FILE, THERE), a=Account("a")), [Key("b", "1")], [], []),
    ],
)
def test_what_a_key_file_changes(known, lines, new, gone):
    taken = decide(known, lines, HERE, 9.0)
    assert [secret.digest for secret in taken.secrets] == new and [secret.digest for secret in taken.gone] == gone
    after = applied(known, taken)
    assert not decide(after, lines, HERE, 10.0), "a second look changes nothing"
    assert all(secret.key in after.keys for secret in after.secrets)


def test_what_a_key_says_itself_counts_before_what_its_group_says():
    groups = {"g": Group("g", "", 9, 2, 3, "m1,m2", 50.0)}
    keys = {"a": Account("a", group_name="g"), "b": Account("b", group_name="g", concurrency=5, models="", ends_at=9.0)}
    limits = (
        Limit("group", "g", "tokens", "day", 100),
        Limit("member", "g", "tokens", "day", 10),
        Limit("member", "g", "images", "day", 4),
        Limit("key", "b", "tokens", "day", 30),
    )
    facts = Records(1, groups, keys, (), limits).facts()
    assert facts["a"] == KeyFacts(
        "a", "key", "g", False, 3, 2, 9, frozenset({"m1", "m2"}), 50.0, (limits[1], limits[2], limits[0])
    )
    assert facts["b"] == KeyFacts("b", "key", "g", False, 3, 5, 9, frozenset(), 9.0, (limits[3], limits[2], limits[0]))


def test_a_secret_ends_with_its_key_or_before_and_on_all_hosts():
    keys = {"a": Account("a", ends_at=50.0), "b": Account("b")}
    found = records(
        Secret("1", "a", ends_at=20.0),
        Secret("2", "a", ends_at=80.0),
        Secret("3", "b", FILE, HERE, ends_at=5.0),
        Secret("3", "b", FILE, THERE),
        **keys,
    ).by_digest()
    assert [found[digest].ends_at for digest in "123"] == [20.0, 50.0, None]


def test_what_is_kept_on_disk_comes_back_whole(database):
    add_group(database, "g", Change({"models": "a,b"}, {("tokens", "day"): 5}, {("images", "month"): 0}))
    add_key(database, "a", Change({"group_name": "g", "owner": "王"}))
    take_over(database, [Key("default", "1")], HERE)
    assert from_data(to_data(read(database))) == read(database)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("100k", 100_000), ("2.5M", 2_500_000), (" 1G ", 10**9), ("1b", 10**9), (7, 7), ("no-limit", None)],
)
def test_counts_as_people_write_them(text, number):
    assert count_of("tokens", text) == number


@pytest.mark.parametrize("text", ["", "k", "1.5", "1e9", "٣", "1 000", "0x10", "--1", 1.5, True, [], {}, "9" * 99])
def test_what_is_no_count(text):
    with pytest.raises(BadTerm, match="tokens: "):
        count_of("tokens", text)


@pytest.mark.parametrize(
    ("zone", "text", "hours"),
    [
        ("UTC", "2026-12-31", 24),
        ("Asia/Shanghai", "2026-12-31", 16),
        ("America/New_York", "2026-12-31", 29),
        ("Asia/Shanghai", "2026-12-31T18:00", 10),
        ("Asia/Shanghai", "2026-12-31T18:00:00+00:00", 18),
    ],
)
def test_a_day_ends_where_the_lab_is(zone, text, hours):
    midnight = 1_798_675_200.0  # 2026-12-31 in UTC
    assert end_of(text, zone_of(Settings(time_zone=zone)), 0.0) == midnight + hours * 3600


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30, "9999-12-31", "2026-02-30", "", [], True])
def test_what_is_no_end(value):
    with pytest.raises(BadTerm, match="is no date"):
        end_of(value, zone_of(Settings()), 0.0)


@pytest.mark.parametrize(("value", "seconds"), [("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("0", 0), (60, 60)])
def test_overlaps(value, seconds):
    assert overlap_of(value) == seconds
