"""Crowds before eight servers, placed by the rule without nginx, over many seeds: who finds the session, how full the fullest is."""

import heapq
import itertools
import random
import statistics
from dataclasses import dataclass, field

import pytest

from lingbi_gateway.router.affinity import SHARE, beginning
from lingbi_gateway.router.running import MARK, Running

SERVERS = [f"10.0.0.{number}:23333" for number in range(8)]
SEEDS = range(8)
LASTS, STEP = 24.0, 0.1  # times of an answer
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@dataclass
class Person:
    """Somebody who asks `turns` questions of a conversation, and then begins the next one, where `subject` makes its opening."""

    number: int
    turns: int
    subject: list
    talk: int = 0
    messages: list = field(default_factory=list)
    server: str | None = None  # of the last turn

    def next_question(self) -> dict:
        if len(self.messages) == 2 * self.turns:
            self.talk, self.messages, self.server = self.talk + 1, [], None
        text = {"type": "text", "text": f"{self.number} {self.talk} {len(self.messages)}"}
        self.messages.append({"role": "user", "content": [*([] if self.messages else self.subject), text]})
        return {"messages": self.messages}


def crowd(seed: int, people: int, turns: int, pause: float, subject: list) -> tuple[float, float]:
    """(share of follow-ups that find their server, median of the fullest server beside the mean), while more than half ask.

    pause: between an answer and the next question, where an answer takes 1.
    """
    chance, gateway, order = random.Random(seed), Running(lambda: 0.0), itertools.count()
    events: list = []

    def later(seconds: float, person: Person, token: str | None) -> None:
        heapq.heappush(events, (seconds, next(order), person, token))

    for number in range(people):
        later(chance.uniform(0, 1 + pause), Person(number, turns, subject), None)
    found, ratios, sample_at = [], [], LASTS / 4
    while events[0][0] < LASTS:
        now, _, person, token = heapq.heappop(events)
        while sample_at < now:
            loads, sample_at = gateway.loads.values(), sample_at + STEP
            if 2 * sum(loads) > people:
                ratios.append(max(loads) / (sum(loads) / len(SERVERS)))
        if token:
            gateway.end(f"{MARK}{token} {person.server}|200")
            person.messages.append({"role": "assistant", "content": "yes"})
            later(now + pause * chance.uniform(0.5, 1.5), person, None)
            continue
        token = str(next(order))
        placed = gateway.begin(SERVERS, beginning(person.next_question()), token)
        if person.server:
            found.append(placed.server == person.server)
        person.server = placed.server
        later(now + chance.uniform(0.5, 1.5), person, token)
    return statistics.mean(found or [1.0]), statistics.median(ratios or [1.0])


@pytest.mark.parametrize("a_server", [2, 4, 8, 16])
def test_nearly_all_follow_ups_of_an_even_load_find_their_server(a_server):
    found = [crowd(seed, a_server * len(SERVERS), 6, 1.0, [])[0] for seed in SEEDS]
    assert min(found) >= 0.95, found


@pytest.mark.parametrize("pause", [0.0, 0.1, 0.25])
def test_forty_people_on_one_picture_are_shared_out_also_while_some_do_not_ask(pause):
    fullest = [crowd(seed, 40, 1, pause, [PICTURE])[1] for seed in SEEDS]
    assert max(fullest) <= 1.3 < SHARE, fullest


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_forty_people_in_conversations_about_one_picture_keep_their_sessions(pause):
    found, fullest = zip(*(crowd(seed, 40, 6, pause, [PICTURE]) for seed in SEEDS), strict=True)
    assert min(found) >= 0.95, found
    assert max(fullest) <= SHARE, fullest


def test_conversations_that_begin_with_the_same_words_keep_their_sessions_from_the_second_answer_on():
    """Their second turns cannot be told apart by what came before, and their servers hold the same for them."""
    gateway, homes = Running(), {}
    talks = {number: [{"role": "user", "content": "hello"}] for number in range(32)}
    for turn in range(4):
        placed = {
            number: gateway.begin(SERVERS, beginning({"messages": talk}), str(number)) for number, talk in talks.items()
        }
        for number, place in placed.items():
            assert turn < 2 or place.server == homes[number]
            homes[number] = place.server
            gateway.end(f"{MARK}{number} {place.server}|200")
            talks[number] += [{"role": "assistant", "content": f"I am {number}"}, {"role": "user", "content": "and?"}]
    assert len(set(homes.values())) > 3
