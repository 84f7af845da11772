"""Which server a conversation goes to, by rule: the same one, unless it is full; and what is moved when servers change."""

import itertools
import json
import random
from collections import Counter

import pytest

from lingbi_gateway.router import running as running_module
from lingbi_gateway.router.affinity import (
    FEW,
    FEW_FIRST,
    SHARE,
    Beginning,
    beginning,
    bound,
    mean,
    most,
    opening,
    place,
    ranked,
)
from lingbi_gateway.router.outlines import LONG_BYTES, outline
from lingbi_gateway.router.running import AWAY_S, HOMES, LOST_S, MARK, Running
from lingbi_gateway.router.told import PLACED, RUNNING, told

SERVERS = [f"10.0.0.{number}:23333" for number in range(8)]
TOKENS = map(str, itertools.count())


def begun(running, begins, servers=SERVERS):
    """Where a request is placed, and the token with which its end is told."""
    token = next(TOKENS)
    return running.begin(servers, begins, token), token


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def said(*texts: str, **fields) -> dict:
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(texts)],
    } | fields


def asked(*parts) -> dict:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def begins(number: int, is_new: bool = True) -> Beginning:
    return Beginning(opening(said(f"conversation {number}")), is_new)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (said("a"), said("a", "b", "c"), True),
        (said("a"), said("a", temperature=0, user="x"), True),
        (said("a"), said("b"), False),
        (said("a" * 5000 + "b"), said("a" * 5000 + "c"), False),
        (said("x", prompt_cache_key="k"), said("y", prompt_cache_key="k"), True),
        (said("x", prompt_cache_key="k"), said("x", prompt_cache_key="l"), False),
        (asked(PICTURE, {"type": "text", "text": "a"}), asked({"type": "text", "text": "b"}, PICTURE), True),
        (asked(PICTURE), asked(PICTURE | {"image_url": {"url": "data:,B"}}), False),
        (
            asked(PICTURE),
            {"input": [{"content": [{"type": "input_image", "image_url": PICTURE["image_url"]["url"]}]}]},
            True,
        ),
        ({"input": "a", "instructions": "b"}, {"input": "a"}, True),
        ({"prompt": "p" * 300}, {"prompt": "p" * 300 + "and on"}, True),
        ({"prompt": ["a", "b"]}, {"prompt": "a"}, True),
        (said("a"), {"messages": [{"role": "system", "content": "s"}, *said("a")["messages"]]}, False),
    ],
    ids=range(13),
)
def test_what_belongs_together_begins_alike(one, other, is_same):
    assert opening(one) and (opening(one) == opening(other)) == is_same


@pytest.mark.parametrize(
    "strange",
    [{}, {"messages": [1]}, {"messages": {}}, {"prompt": 1}, {"prompt": []}, {"messages": None, "input": None}],
)
def test_what_begins_like_nothing_is_not_placed(strange):
    assert opening(strange) is None and beginning(strange) is None


def test_strange_contents_end_nothing():
    for content in (1, [1, None], {}, [{"image_url": 1}], [{"text": 1}], [{"image_url": {"url": {}}}], "\ud800"):
        assert opening({"messages": [{"role": "user", "content": content}]})


def test_a_large_picture_begins_like_itself_only_in_a_body_of_any_size():
    def of(url: str, more: str = "") -> bytes:
        part = {"type": "image_url", "image_url": {"url": url}}
        return opening(outline(json.dumps(asked(part, {"type": "text", "text": more})).encode()))

    long = "data:image/png;base64," + "A" * (20 * LONG_BYTES)
    assert of(long) == of(long, "x" * LONG_BYTES) != of(long[:-1] + "B")
    short = long[: LONG_BYTES - 100]
    assert of(short) == of(short, "x" * LONG_BYTES) != of(short + "A")


def test_every_gateway_ranks_alike_and_only_a_share_moves():
    before = {number: ranked(SERVERS, begins(number).digest)[0] for number in range(4000)}
    assert before == {number: ranked(SERVERS[::-1], begins(number).digest)[0] for number in range(4000)}
    counts = Counter(before.values())
    assert max(counts.values()) < 1.2 * 4000 / 8 and len(counts) == 8
    without = {number: ranked(SERVERS[1:], begins(number).digest)[0] for number in range(4000)}
    moved = [number for number in before if before[number] != without[number]]
    assert {before[number] for number in moved} == {SERVERS[0]} and len(moved) <= 1.2 * 4000 / 8
    elsewhere = "10.0.0.0:23334"  # it comes back under another port: what it had goes anywhere, and it takes no more than a share
    back = {number: ranked([elsewhere, *SERVERS[1:]], begins(number).digest)[0] for number in before}
    taken = [number for number in before if before[number] != back[number]]
    assert all(before[number] == SERVERS[0] or back[number] == elsewhere for number in taken)
    assert Counter(back.values())[elsewhere] <= 1.2 * 4000 / 8 and len(taken) <= 2 * 1.2 * 4000 / 8
    heirs = Counter(without[number] for number in moved)
    assert len(heirs) == 7 and max(heirs.values()) < 2 * len(moved) / 7  # shared out, not heaped on one


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64, 200])
def test_the_bound_always_leaves_room_and_always_holds(count):
    """For any loads: they are drawn, and those at which everything is full would be found by the sums alone."""
    for running in range(10 * count):
        assert count * bound(running + 1, count) > running and count * mean(running + 1, count) > running
        assert mean(running + 1, count) <= bound(running + 1, count) <= max(FEW, SHARE * (running + 1) / count)
        first = most(begins(0), True, running + 1, count)
        assert mean(running + 1, count) <= first <= max(FEW_FIRST, mean(running + 1, count))
    chance, servers = random.Random(count), [f"s{number}:1" for number in range(count)]
    loads = Counter()
    same = begins(0, is_new=False)
    for _ in range(20 * count):
        placed = place(servers, loads, same if chance.random() < 0.7 else begins(chance.randrange(9)))
        loads[placed.server] += 1
        assert loads[placed.server] <= max(FEW, SHARE * sum(loads.values()) / count)


@pytest.mark.parametrize(("is_new", "fullest"), [(True, 5), (False, 7)])
def test_forty_people_ask_about_one_picture(is_new, fullest):
    loads, home = Counter(), None
    for _ in range(40):
        home = place(SERVERS, loads, begins(1, is_new), home).server
        loads[home] += 1
    assert max(loads.values()) == fullest <= 1.5 * 40 / 8


def test_a_few_first_questions_about_one_picture_share_what_its_server_holds():
    running, found = Running(), []
    for _ in range(FEW_FIRST + 1):
        found.append(begun(running, begins(1))[0])
    home, *others = ranked(SERVERS, begins(1).digest)
    assert [placed.server for placed in found] == [home] * FEW_FIRST + [others[0]]
    assert [placed.is_spilled for placed in found] == [False] * FEW_FIRST + [True]
    assert running.results == {"kept": FEW_FIRST - 1, "spilled": 1, "moved": 0, "new": 1}
    assert begun(running, begins(1, is_new=False))[0].server == others[0]  # a follow-up may join more


def test_each_conversation_about_one_picture_has_its_own_server():
    """Seven begin at once, some of them on a server that is not the picture's last, and go on one after the other."""
    running, talks = Running(), {name: asked(PICTURE, {"type": "text", "text": name}) for name in "abcdefg"}
    first = {name: begun(running, beginning(talk)) for name, talk in talks.items()}
    for placed, token in first.values():
        running.end(f"{MARK}{token} {placed.server}|200")
    assert len({placed.server for placed, _ in first.values()}) > 1
    for turn in range(3):
        for name, talk in talks.items():
            talk["messages"] += [{"role": "assistant", "content": f"{turn}"}, {"role": "user", "content": "and?"}]
            placed, token = begun(running, beginning(talk))
            running.end(f"{MARK}{token} {placed.server}|200")
            assert placed.server == first[name][0].server
    cut = {"messages": [talks["a"]["messages"][0], *talks["a"]["messages"][-2:]]}  # its history is not what it was
    assert begun(running, beginning(cut))[0].server == first["g"][0].server


def test_a_turn_says_what_the_next_one_had_before():
    talk, last = said("a"), beginning(said("a"))
    assert last.is_new and last.before is None
    for answer in ("b", "c"):
        talk["messages"] += [{"role": "assistant", "content": answer}, {"role": "user", "content": answer * 2}]
        following = beginning(talk)
        assert not following.is_new and following.before == last.now != following.now
        last = following
    parts = [{"type": "text", "text": "a"}]
    assert beginning({"messages": [{"role": "user", "content": parts}]}).now == beginning(said("a")).now
    assert beginning({"prompt": "p"}).now is None


def test_an_attacker_who_knows_the_hash_fills_no_server():
    first = [number for number in range(4000) if ranked(SERVERS, begins(number).digest)[0] == SERVERS[0]][:80]
    for is_new in (True, False):
        loads = Counter()
        for number in first:
            loads[place(SERVERS, loads, begins(number, is_new)).server] += 1
        assert max(loads.values()) / 10 <= 1.5


def test_a_conversation_stays_where_it_was_sent_when_its_first_server_was_full():
    running = Running()
    tokens = [begun(running, begins(1, is_new=False))[1] for _ in range(FEW)]
    home = ranked(SERVERS, begins(1).digest)[0]
    assert running.loads == {home: FEW}
    spilled, token = begun(running, begins(1, is_new=False))
    assert spilled.is_spilled and spilled.server == ranked(SERVERS, begins(1).digest)[1]
    for each in (*tokens, token, token, "unknown"):
        running.end(f"<190>Jan  1 00:00:00 lingbi:{MARK}{each} {home}|200\n")
    assert not running.loads
    assert begun(running, begins(1, is_new=False))[0].server == spilled.server
    assert begun(Running(), begins(1, is_new=False))[0].server == home


def test_a_placing_is_counted_by_where_the_conversation_was_before():
    now = [0.0]
    running = Running(lambda: now[0])
    first, token = begun(running, begins(1, is_new=False))
    begun(running, begins(1, is_new=False))
    assert running.results == {"kept": 1, "spilled": 0, "moved": 0, "new": 1}
    running.end(f"{MARK}{token} {first.server}|502")
    begun(running, begins(1, is_new=False))  # its server has failed
    assert running.results["moved"] == 1
    for _ in range(FEW):
        begun(running, begins(1, is_new=False))
    assert running.results["spilled"] > 0 and sum(running.results.values()) == 3 + FEW
    said = told(running, SERVERS).body.decode()
    assert f'{PLACED}{{result="moved"}} 1\n' in said
    counts = {int(line.split()[1]) for line in said.splitlines() if line.startswith(f"{RUNNING}{{")}
    assert counts >= {0, FEW}, said


def test_a_new_conversation_passes_over_who_has_more_than_the_mean():
    running = Running()
    found = [begun(running, begins(number))[0].server for number in range(16)]
    assert set(Counter(found).values()) == {2}


def test_a_server_that_failed_is_left_out_for_a_while():
    now = [0.0]
    running = Running(lambda: now[0])
    placed, token = begun(running, begins(1, is_new=False))
    heir = ranked(SERVERS, begins(1).digest)[1]
    running.end(f"{MARK}{token} {placed.server}, {heir}|502, 200")
    assert begun(running, begins(1, is_new=False))[0].server == heir
    now[0] += AWAY_S
    assert begun(running, begins(2, is_new=False))[0].server == ranked(SERVERS, begins(2).digest)[0]
    for server in SERVERS:
        _, token = begun(running, begins(3))
        running.end(f"{MARK}{token} {server}|503")
    assert begun(running, begins(3))  # all failed: one is tried nevertheless


def test_a_server_that_is_listed_by_its_name_is_left_out_too():
    names = [f"gpu{number}:23333" for number in range(3)]
    running = Running(lambda: 0.0)
    placed, token = begun(running, begins(1, is_new=False), names)
    running.end(f"{MARK}{token} 10.0.0.7:23333, 10.0.0.8:23333|502, 200")
    heir, token = begun(running, begins(1, is_new=False), names)
    assert heir.server != placed.server
    running.end(f"{MARK}{token} unix:/router/ask.sock|504")  # the router alone was slow
    assert begun(running, begins(1, is_new=False), names)[0].server == heir.server


def test_ends_that_were_lost_are_forgotten_and_homes_are_few(monkeypatch):
    monkeypatch.setattr(running_module, "HOMES", 3)
    now = [0.0]
    running = Running(lambda: now[0])
    for number in range(9):
        begun(running, begins(number))
    assert len(running._homes) == 3 < HOMES and sum(running.loads.values()) == 9
    now[0] += LOST_S + 1
    begun(running, begins(1))
    assert sum(running.loads.values()) == 1
