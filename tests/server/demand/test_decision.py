"""Who is loaded on a card: the rules one by one, and their bounds under many clients, in simulated time."""

import random
from dataclasses import replace

import pytest

from lingbi.demand.decision import (
    ASLEEP,
    BACKGROUND_S,
    CHECK,
    CHECKED,
    CHECKING,
    DRAINING,
    IDLE,
    PUT_AWAY,
    READY,
    ROOM,
    WAKE,
    WAKING,
    Bounds,
    Member,
    Order,
    decide,
)
from tests.server.demand.simulation import AT_ONCE, CHECK_S, EXIT_S, LOAD_S, Card

ONE = Bounds(slots=1, stay_s=30, idle_s=0)
IDLE_MODEL = Member(1, "a", "0", READY, idle_s=5, ready_s=5)
BUSY_MODEL = Member(1, "a", "0", READY, inside=3, ready_s=5)
WANTED = Member(2, "b", "0", CHECKED, waiting=1, waited_s=2)


@pytest.mark.parametrize("member", [Member(1, "a", "0", ASLEEP), IDLE_MODEL, BUSY_MODEL])
def test_nothing_happens_while_nobody_waits(member):
    assert decide([member], ONE) == []


def test_weights_are_checked_before_anybody_is_put_away():
    sleeping = Member(2, "b", "0", ASLEEP, waiting=1, waited_s=2)
    assert decide([IDLE_MODEL, sleeping], ONE) == [Order(2, CHECK)]
    assert decide([IDLE_MODEL, Member(2, "b", "0", CHECKING, waiting=1)], ONE) == []
    assert decide([IDLE_MODEL, WANTED], ONE) == [Order(1, PUT_AWAY, ROOM)]
    assert decide([WANTED], ONE) == [Order(2, WAKE)]


def test_a_model_with_work_stays_for_its_time_and_then_goes():
    assert decide([BUSY_MODEL, WANTED], ONE) == []
    late = Member(1, "a", "0", READY, inside=3, ready_s=30)
    assert decide([late, WANTED], ONE) == [Order(1, PUT_AWAY, ROOM)]


def test_a_model_between_two_questions_of_one_client_stays():
    between = Member(1, "a", "0", READY, idle_s=0.9, ready_s=5)
    assert decide([between, WANTED], ONE) == []


def test_a_model_that_was_unused_when_another_was_asked_for_goes_sooner():
    unused, just_wanted = Member(1, "a", "0", READY, idle_s=0.4, ready_s=5), replace(WANTED, waited_s=0.35)
    assert decide([unused, just_wanted], ONE) == [Order(1, PUT_AWAY, ROOM)]
    assert decide([unused, replace(just_wanted, waited_s=0.45)], ONE) == []
    assert decide([replace(unused, idle_s=0.2), replace(just_wanted, waited_s=0.15)], ONE) == []


def test_lines_wake_a_model_only_where_nobody_needs_the_card():
    lines, checked = Member(2, "b", "0", ASLEEP, lines=True), Member(2, "b", "0", CHECKED, lines=True)
    unused = Member(1, "a", "0", READY, idle_s=BACKGROUND_S, ready_s=99)
    assert decide([lines], ONE) == [Order(2, CHECK)] and decide([checked], ONE) == [Order(2, WAKE)]
    assert decide([unused, lines], ONE) == [Order(2, CHECK)]
    assert decide([unused, checked], ONE) == [Order(1, PUT_AWAY, ROOM)]
    for needed in (IDLE_MODEL, BUSY_MODEL, replace(unused, lines=True), replace(unused, inside=1)):
        assert decide([needed, lines], ONE) == decide([needed, checked], ONE) == []
    third = Member(3, "c", "0", CHECKED, waiting=1, waited_s=1)
    assert decide([unused, checked, third], ONE) == [Order(1, PUT_AWAY, ROOM)] and decide([checked, third], ONE) == [
        Order(3, WAKE)
    ]


def test_a_model_with_lines_is_not_idle_and_goes_for_whoever_waits():
    bounds = Bounds(slots=1, stay_s=30, idle_s=60)
    lines = Member(1, "a", "0", READY, idle_s=90, ready_s=90, lines=True)
    assert decide([lines], bounds) == []
    assert decide([replace(lines, lines=False)], bounds) == [Order(1, PUT_AWAY, IDLE)]
    assert decide([lines, WANTED], bounds) == [Order(1, PUT_AWAY, ROOM)]


@pytest.mark.parametrize("phase", [CHECKING, WAKING, DRAINING])
def test_a_card_has_one_swap_at_a_time(phase):
    assert decide([Member(1, "a", "0", phase), WANTED, Member(3, "c", "0", READY, idle_s=9, ready_s=99)], ONE) == []


def test_cards_do_not_wait_for_each_other():
    elsewhere = Member(3, "a", "1", WAKING)
    assert decide([WANTED, elsewhere], ONE) == [Order(2, WAKE)]


def test_the_least_recently_used_goes_and_those_with_work_last():
    two = Bounds(slots=2, stay_s=30, idle_s=0)
    busy = Member(1, "a", "0", READY, inside=1, ready_s=99)
    used, unused = (Member(number, "x", "0", READY, idle_s=idle, ready_s=99) for number, idle in ((3, 2), (4, 7)))
    assert decide([busy, used, WANTED], two) == [Order(3, PUT_AWAY, ROOM)]
    assert decide([unused, used, WANTED], two) == [Order(4, PUT_AWAY, ROOM)]
    assert decide([used, WANTED], two) == [Order(2, WAKE)]


def test_whoever_has_been_waited_for_longest_is_next_and_keeps_its_turn():
    first, second = (
        Member(number, "x", "0", ASLEEP, waiting=1, waited_s=waited) for number, waited in ((5, 3), (6, 9))
    )
    assert decide([first, second], ONE) == [Order(6, CHECK)]
    assert decide([first, second, WANTED], ONE) == [Order(2, WAKE)]


def test_an_idle_model_gives_the_card_back_after_the_time_that_is_set():
    idle = Bounds(slots=1, stay_s=30, idle_s=4)
    assert decide([IDLE_MODEL], idle) == [Order(1, PUT_AWAY, IDLE)]
    assert decide([BUSY_MODEL], idle) == []
    assert decide([Member(1, "a", "0", READY, idle_s=3, ready_s=90)], idle) == []


def run(card: Card, clients: int, questions: int, model_of) -> None:
    """Every client asks its questions one after the other; model_of(client, question): the model of each."""
    asked = dict.fromkeys(range(clients), 1)
    for client in range(clients):
        card.ask(client, model_of(client, 0))
    while len(card.waits) < clients * questions:
        card.step()
        for client in card.answered:
            if asked[client] < questions:
                card.ask(client, model_of(client, asked[client]))
                asked[client] += 1
        card.answered.clear()
        assert card.now < 1e5, "somebody waits for ever"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("models", [2, 3])
@pytest.mark.parametrize("order", ["in step", "out of step", "at random"])
def test_clients_that_change_models_with_every_question_cause_few_loads(models, order, seed):
    clients, questions = 200, 10
    chosen = random.Random(seed)
    turns = {
        "in step": lambda client, question: question % models,
        "out of step": lambda client, question: (client + question) % models,
        "at random": lambda client, question: chosen.randrange(models),
    }
    card = Card(models, ONE, seed)
    run(card, clients, questions, turns[order])
    loads = sum(model.loads for model in card.models)
    print(
        f"{models} models, {order}: {loads} loads for {clients * questions} questions, longest wait {max(card.waits):.0f} s"
    )
    assert loads <= models * questions + 1


@pytest.mark.parametrize("models", [2, 3])
def test_nobody_waits_for_longer_than_the_others_stay(models):
    """One model has more work than it can do; a single client of each other one gets its answers within the bound."""
    crowd = 4 * AT_ONCE
    card = Card(models, ONE, answer_s=2.0)
    waits = []
    for client in range(crowd):
        card.ask(client, 0)
    for client in range(1, models):
        card.ask(crowd + client, client)
    while card.now < 2000:
        card.step()
        for client, waited in zip(
            card.answered, card.waits[-len(card.answered) :] if card.answered else [], strict=True
        ):
            if client > crowd:
                waits.append(waited)
            card.ask(client, max(0, client - crowd))
        card.answered.clear()
    drain_s = crowd / AT_ONCE * 2 * 2.0
    bound_s = (models - 1) * (ONE.stay_s + drain_s + EXIT_S + LOAD_S) + CHECK_S + LOAD_S + drain_s
    print(
        f"{models} models: {len(waits)} answers beside the crowd, longest wait {max(waits):.1f} s, bound {bound_s:.1f} s"
    )
    assert len(waits) > 20 and max(waits) <= bound_s


def test_a_stay_bounds_the_share_of_time_that_loads_take():
    """A crowd at one model, one client at another that never stops: the crowd's model has most of the card's time."""
    card = Card(2, ONE, answer_s=1.0)
    for client in range(40):
        card.ask(client, 0)
    card.ask(40, 1)
    while card.now < 1000:
        card.step()
        for client in card.answered:
            card.ask(client, int(client == 40))
        card.answered.clear()
    loads = sum(model.loads for model in card.models)
    assert loads * (LOAD_S + EXIT_S) / card.now <= 2 * (LOAD_S + EXIT_S) / (ONE.stay_s + 2 * (LOAD_S + EXIT_S))


@pytest.mark.parametrize("pause_s", [0.0, 0.5, 0.8])
def test_two_clients_with_short_pauses_at_two_models_do_not_swap_with_every_question(pause_s):
    """Each keeps to its model, and thinks for a while between its questions."""
    card, due = Card(2, ONE), {0: 0.0, 1: 0.0}
    while len(card.waits) < 80:
        for client in [client for client, then in due.items() if then <= card.now]:
            card.ask(client, client)
            del due[client]
        card.step()
        due |= dict.fromkeys(card.answered, card.now + pause_s)
        card.answered.clear()
        assert card.now < 1000, "each question waits for a load"
    loads = sum(model.loads for model in card.models)
    print(f"pauses of {pause_s} s: {loads} loads for {len(card.waits)} questions in {card.now:.0f} s")
    assert loads <= card.now / ONE.stay_s + 2
