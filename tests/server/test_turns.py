"""Who shares, shares by weight: nobody who has little waits behind all that another has begun."""

import itertools
import random
from collections import Counter

import pytest

from lingbi.turns import NOBODY, REMEMBERED_S, Asker, Turns, reserve_of, share_of

A, B, C = Asker("a"), Asker("b"), Asker("c")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(turns: Turns) -> list:
    """Everything that may begin now."""
    return list(iter(turns.take, None))


def asked(turns: Turns, asker: Asker, count: int) -> list:
    """What begins when an asker asks so often."""
    for number in range(count):
        turns.put(asker, (asker.name, number))
    return taken(turns)


@pytest.mark.parametrize(("places", "reserve"), [(1, 0), (2, 1), (4, 1), (8, 1), (15, 1), (16, 2), (64, 8), (128, 16)])
def test_the_reserve_is_an_eighth(places, reserve):
    assert reserve_of(places) == reserve


def test_alone_an_asker_has_all_places_and_not_the_reserve():
    turns = Turns(8, 1)
    assert asked(turns, A, 20) == [("a", number) for number in range(8)]
    assert len(turns) == 12


def test_a_newcomer_begins_at_once_though_all_places_are_taken():
    turns = Turns(8, 1)
    asked(turns, A, 20)
    assert asked(turns, B, 3) == [("b", 0)]


def test_a_newcomer_gets_every_place_that_becomes_free_until_it_has_as_many():
    turns = Turns(4, 1)
    asked(turns, A, 20)
    asked(turns, B, 20)
    began = []
    for _ in range(6):
        turns.leave("a" if turns.running["a"] > 2 else "b")
        began += taken(turns)
    assert [name for name, _ in began[:1]] == ["b"]
    assert turns.running["a"] == turns.running["b"] == 2
    assert [number for name, number in began if name == "b"] == sorted(number for name, number in began if name == "b")


def test_the_reserve_is_for_first_items_so_one_newcomer_takes_one_place_of_it():
    turns = Turns(64, 8)
    asked(turns, A, 200)
    newcomers = [Asker(f"newcomer {number}") for number in range(9)]
    assert [len(asked(turns, newcomer, 100)) for newcomer in newcomers] == [1] * 8 + [0]


def test_who_stands_for_several_askers_has_as_many_first_items():
    turns = Turns(64, 8)
    asked(turns, A, 200)
    assert len(asked(turns, Asker("page", 4 * A.weight), 100)) == 4


def test_places_stay_free_for_those_who_asked_a_short_while_ago():
    clock = Clock()
    turns = Turns(8, 1, clock)
    for asker in (B, C):
        asked(turns, asker, 1)
        turns.leave(asker.name)
    clock.now = REMEMBERED_S
    assert len(asked(turns, A, 20)) == 7
    assert len(asked(turns, B, 1)) == len(asked(turns, C, 1)) == 1


def test_who_has_been_away_is_forgotten():
    clock = Clock()
    turns = Turns(8, 1, clock)
    asked(turns, B, 1)
    turns.leave("b")
    clock.now = REMEMBERED_S + 1
    assert len(asked(turns, A, 20)) == 8 and set(turns.seen) == {A}


def test_many_who_do_not_ask_now_keep_at_most_half_of_all_places_free():
    turns = Turns(8, 1)
    for number in range(100):
        asked(turns, Asker(f"earlier {number}"), 1)
        turns.leave(f"earlier {number}")
    assert len(asked(turns, A, 20)) == 5


def test_a_heavier_asker_has_more_in_proportion():
    page = Asker("page", 3 * A.weight)
    turns = Turns(8, 1)
    for asker in (A, page):
        for number in range(20):
            turns.put(asker, (asker.name, number))
    taken(turns)
    assert (turns.running["a"], turns.running["page"]) == (2, 6)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_comes_and_goes_places_are_kept_and_nobody_starves(seed):
    rng = random.Random(seed)
    askers = [Asker(name, rng.choice((1, 16, 64))) for name in "abcd"]
    turns, put, began = Turns(6, 1), Counter(), Counter()
    running = []
    for _ in range(400):
        asker = rng.choice(askers)
        if rng.random() < 0.6:
            turns.put(asker, (asker.name, put[asker.name]))
            put[asker.name] += 1
        elif running:
            turns.leave(running.pop(rng.randrange(len(running))))
        for name, number in taken(turns):
            assert number == began[name]
            began[name] += 1
            running.append(name)
        assert len(running) <= 7 and Counter(running) == +turns.running
        assert len(turns) == (put - began).total()
        assert not len(turns) or len(running) >= 4  # at most half of all places stay empty while somebody waits
    while running:
        turns.leave(running.pop())
        for name, _ in taken(turns):
            began[name] += 1
            running.append(name)
    assert began == put and not turns.weights and not turns.queues and not turns.running


class Story:
    """Askers of any weights come and go; one of them floods. The clock goes on with every event."""

    def __init__(self, seed: int) -> None:
        self.rng, self.clock = random.Random(seed), Clock()
        self.places = self.rng.choice((1, 2, 8, 16, 64))
        self.turns = Turns(self.places, reserve_of(self.places), self.clock)
        self.running: list[tuple[Asker, float]] = []  # and when each began
        self.began: list[tuple[Asker, int]] = []

    def put(self, asker: Asker) -> int:
        """The number of the item that an asker puts."""
        self.clock.now += self.rng.random()
        self.turns.put(asker, (asker, number := next(COUNTER)))
        self.grant()
        return number

    def end_one(self) -> None:
        self.clock.now += self.rng.random()
        asker, _ = self.running.pop(self.rng.randrange(len(self.running)))
        self.turns.leave(asker.name)
        self.grant()

    def grant(self) -> None:
        for asker, number in taken(self.turns):
            self.running.append((asker, self.clock.now))
            self.began.append((asker, number))

    def has_begun(self, number: int) -> bool:
        return any(other == number for _, other in self.began)


COUNTER = itertools.count()
HEAVY = Asker("heavy")


@pytest.mark.parametrize("seed", range(40))
def test_who_runs_nothing_waits_for_no_more_ends_than_askers_wait_before_it(seed):
    """The bound in general, whatever runs and for how long, and whatever the weights are."""
    story = Story(seed)
    others = [Asker(f"other {number}", story.rng.choice((4, 16, 64))) for number in range(story.rng.randrange(1, 30))]
    for _ in range(400):
        if story.running and story.rng.random() < 0.3:
            story.end_one()
        else:
            story.put(story.rng.choice((HEAVY, HEAVY, *others)))
    newcomer = Asker("newcomer", story.rng.choice((4, 16)))
    number = story.put(newcomer)
    before = len(story.turns.queues) - 1
    ends = 0
    while not story.has_begun(number):
        story.end_one()
        ends += 1
        for _ in range(story.rng.randrange(3)):
            story.put(story.rng.choice((HEAVY, *others)))
    assert ends <= before + 1, f"{before} askers waited before it"


@pytest.mark.parametrize("seed", range(40))
def test_a_key_that_floods_keeps_nobody_waiting_who_asked_a_short_while_ago(seed):
    """The bound against one key: once what it began before is over, others' first items begin at once."""
    story = Story(seed)
    if story.places == 1:
        return
    others = [Asker(f"other {number}") for number in range(story.rng.randint(1, max(1, story.places // 2)))]
    for asker in others:
        story.put(asker)
    since = story.clock.now
    while any(asker != HEAVY or began < since for asker, began in story.running):
        story.end_one()
    for _ in range(300):
        story.put(HEAVY)
        if story.rng.random() < 0.2 and story.running:
            story.end_one()
        asker = min(others, key=lambda asker: story.turns.seen.get(asker, 0))  # so that nobody is away for long
        if not story.turns.running[asker.name]:
            assert story.has_begun(story.put(asker)), story.turns.running
        for asker in others:
            if story.turns.running[asker.name] and story.rng.random() < 0.5:
                story.running.remove(next(item for item in story.running if item[0] == asker))
                story.turns.leave(asker.name)
                story.grant()


def test_what_waits_no_longer_is_forgotten():
    turns = Turns(1, 0)
    asked(turns, A, 1)
    asked(turns, B, 2)
    assert list(turns.waiting("b")) == [("b", 1), ("b", 0)]
    turns.drop("b", ("b", 1))
    turns.drop("b", ("b", 0))
    assert not len(turns) and set(turns.weights) == {"a"} and not list(turns.waiting("b"))


def test_shares_add_up_to_no_more_than_there_is_and_are_at_least_one():
    weights = {"a": 16, "b": 64, "c": 16}
    assert [share_of(96, Asker(name, weight), weights) for name, weight in weights.items()] == [16, 64, 16]
    assert share_of(2, NOBODY, weights) == 1
    assert share_of(80, A, {}) == 80


def test_what_is_asked_in_the_background_begins_only_while_nobody_else_waits():
    turns = Turns(4, 1)
    asked(turns, A, 20)
    assert asked(turns, B.in_background, 2) == []
    for _ in range(16):
        turns.leave("a")
        assert {name for name, _ in taken(turns)} == {"a"}
    turns.leave("a")
    assert taken(turns) == [(B.in_background.name, 0)]


def test_in_the_background_nothing_takes_what_is_kept_for_first_items():
    turns = Turns(8, 1)
    assert len(asked(turns, A.in_background, 20)) == 8
    assert asked(turns, B, 1) == [("b", 0)]


def test_in_the_background_places_stay_free_for_those_who_asked_a_short_while_ago():
    clock = Clock()
    turns = Turns(8, 1, clock)
    for asker in (B, C):
        asked(turns, asker, 1)
        turns.leave(asker.name)
    assert len(asked(turns, A.in_background, 20)) == 7
    clock.now += REMEMBERED_S + 1
    assert len(taken(turns)) == 1


def test_those_in_the_background_take_turns_too_by_weight():
    turns = Turns(8, 0)
    heavy, light = Asker("heavy", 48).in_background, Asker("light", 16).in_background
    for number in range(20):
        turns.put(light, (light.name, number))
        turns.put(heavy, (heavy.name, number))
    assert Counter(name for name, _ in taken(turns)) == {heavy.name: 6, light.name: 2}


@pytest.mark.parametrize("reserve", [0, 1])
def test_in_the_background_one_alone_has_all_places(reserve):
    assert len(asked(Turns(1, reserve), A.in_background, 3)) == 1


def test_keys_that_all_wait_take_turns_by_weight_and_not_by_connections():
    askers = [Asker("light", 16), Asker("usual", 32), Asker("heavy", 48)]
    turns, served = Turns(12, 0), Counter()
    for asker, connections in zip(askers, (600, 300, 100), strict=True):
        for number in range(connections):
            turns.put(asker, (asker.name, number))
    running = [name for name, _ in taken(turns)]
    for _ in range(100):  # whoever began first ends first
        turns.leave(running.pop(0))
        [(name, _)] = taken(turns)
        running.append(name)
        served[name] += 1
        assert turns.running == {"light": 2, "usual": 4, "heavy": 6}
    assert served["heavy"] == pytest.approx(50, abs=2) and served["light"] == pytest.approx(17, abs=2)
