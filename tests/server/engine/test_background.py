"""What is asked in the background begins beside those who wait for an answer, who hardly notice it."""

import pytest

from lingbi.engine.background import Background, Rules
from lingbi.turns import Asker, Turns

PLACES = 128
RULES = Rules()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def background(clock):
    return Background(clock=clock)


def begun(background: Background, running: int = 0) -> int:
    """How many may begin at once."""
    count = 0
    while background.may_begin(running + count, PLACES):
        background.begin(("line", running + count))
        count += 1
    return count


def test_alone_it_has_all_places_and_the_engine_few_prompts_at_once(background):
    assert background.is_alone and begun(background) == RULES.alone
    background.begun(("line", 0))
    assert begun(background, running=RULES.alone) == 1
    assert background.may_begin(0, PLACES) is False


def test_while_somebody_waits_for_a_first_token_nothing_begins(background):
    changes = []
    background.on_change = lambda: changes.append(begun(background))
    background.arrive("a")
    assert begun(background) == 0
    background.answer("a")
    background.answer("a")
    assert changes == [RULES.beside]


def test_beginnings_take_their_share_of_the_time(background, clock):
    background.arrive("a")
    background.answer("a")
    began, work_s = 0, 0.05
    until = clock.now + 100
    while clock.now < until:
        if background.may_begin(0, PLACES):
            background.begin("line")
            clock.now += work_s
            background.begun("line")
            began += 1
        clock.now += 0.001
    assert 0.9 * RULES.share <= began * work_s / 100 <= RULES.share


def test_between_questions_one_begins_after_the_other(background, clock):
    background.arrive("a")
    background.leave("a")
    assert not background.is_alone
    for _ in range(5):
        assert begun(background) == RULES.beside
        clock.now += 0.05
        background.begun(("line", 0))
    clock.now += RULES.quiet_s
    assert background.is_alone and begun(background) == RULES.alone


def test_beside_those_who_ask_it_has_a_part_of_the_places(background):
    background.arrive("a")
    background.leave("a")
    most = int(RULES.places * PLACES)
    assert background.may_begin(most - 1, PLACES) and not background.may_begin(most, PLACES)
    assert background.may_begin(0, 1), "on one place too"


def test_somebody_who_never_gets_a_token_does_not_hold_it_up_for_good(background, clock):
    background.arrive("a")
    clock.now += RULES.patience_s - 0.01
    assert begun(background) == 0
    clock.now += 0.02
    assert begun(background) == 1


def test_a_request_that_ends_is_waited_for_no_longer(background):
    background.arrive("a")
    background.leave("a")
    background.leave("never here")
    assert not background.unanswered and not background.inside


def test_turns_ask_it_for_what_is_in_the_background_only(background):
    turns: Turns = Turns(8, 1, may_begin=background.may_begin)
    background.arrive("a")
    turns.put(Asker("line").in_background, "line")
    turns.put(Asker("a"), "a")
    assert not turns.only_background and turns.take() == "a" and turns.take() is None
    assert turns.only_background
    background.leave("a")
    assert turns.take() == "line" and turns.in_background == 1 and not turns.only_background


def test_prompts_are_computed_in_parts_only_while_somebody_asks(background, clock):
    assert not background.parts(RULES.part + 1)
    background.arrive("a")
    assert background.parts(RULES.part + 1) and not background.parts(RULES.part)
    background.leave("a")
    assert background.parts(RULES.part + 1), "who asked a moment ago asks again"
    clock.now += RULES.quiet_s
    assert not background.parts(RULES.part + 1)


def test_a_prompt_stands_aside_for_who_waits_for_a_first_token_but_not_for_ever(background, clock):
    background.begin("line")
    assert background.may_go_on
    background.arrive("a")
    assert not background.may_go_on
    clock.now += RULES.patience_s
    assert background.may_go_on
    background.begin("another line")
    assert not background.may_go_on
    background.answer("a")
    assert background.may_go_on


def test_the_time_that_a_prompt_stands_aside_is_not_of_its_share(background, clock):
    background.arrive("a")
    background.answer("a")
    background.begin("line")
    clock.now += 0.03
    background.go_on("line", 0.02)
    background.go_on("one that has ended", 5.0)
    background.begun("line")
    clock.now += 0.01 / RULES.share - 0.01 - 0.001
    assert not background.may_begin(0, PLACES)
    clock.now += 0.002
    assert background.may_begin(0, PLACES)
