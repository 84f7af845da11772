"""Which session a prompt may go on with: only one that surely holds its beginning, pictures included."""

import torch

from lingbi.engine.prompts import Prompt
from lingbi.engine.sessions import LEAST_COMMON, Place, Sessions

IMAGE_ID = 0
CAT, DOG = torch.zeros(4, 2), torch.zeros(4, 2)


def asking(*images, start: int = 10, words=(7, 8, 9)) -> Prompt:
    """start words, the pictures (4 tokens each), and the question."""
    ids, ranges = list(range(1, start + 1)), []
    for _ in images:
        ranges.append([len(ids), len(ids) + 4])
        ids += [IMAGE_ID] * 4
    return Prompt(ids + list(words), list(images), ranges)


def kept(prompt: Prompt, limit: int = 4) -> Sessions:
    sessions = Sessions(limit)
    sessions.keep(sessions.take(prompt, True), prompt, is_whole=True, tokens=len(prompt.ids))
    return sessions


def test_the_same_question_computes_its_last_token_only():
    prompt = asking(CAT)
    assert kept(prompt).take(asking(CAT), True) == Place(1, len(prompt.ids) - 1)


def test_another_question_about_the_image_goes_on_after_what_is_common():
    assert kept(asking(CAT)).take(asking(CAT, words=(7, 5)), True) == Place(1, 15)


def test_a_conversation_goes_on_after_its_last_turn():
    first = asking(CAT)
    turn = Prompt([*first.ids, 50, 51, 52], first.features, first.ranges)
    assert kept(first).take(turn, True) == Place(1, len(first.ids))


def test_another_image_of_the_same_size_is_another_beginning():
    assert kept(asking(CAT)).take(asking(DOG), True).step == 0
    assert kept(asking(CAT, CAT)).take(asking(CAT, DOG), True) == Place(1, 14)


def test_an_image_that_is_cut_by_the_common_part_is_computed_whole():
    """A text of the same token ids as a picture's places must not pass for half of it."""
    shorter = Prompt([*range(1, 11), IMAGE_ID, IMAGE_ID, 3], [], [])
    assert kept(shorter).take(asking(CAT), True).step == 0


def test_an_image_that_was_forgotten_is_no_beginning():
    image = torch.zeros(4, 2)
    sessions = kept(asking(image))
    del image
    assert sessions.take(asking(torch.zeros(4, 2)), True).step == 0


def test_the_templates_words_alone_are_not_worth_a_session_but_a_long_text_is():
    assert kept(Prompt(list(range(LEAST_COMMON - 1)))).take(Prompt([*range(LEAST_COMMON - 1), 1, 2]), True).step == 0
    assert kept(Prompt(list(range(LEAST_COMMON)))).take(Prompt([*range(LEAST_COMMON), 1, 2]), True).step == LEAST_COMMON


def test_a_session_serves_one_answer_at_a_time():
    sessions = kept(asking(CAT))
    assert sessions.take(asking(CAT), True).step and sessions.take(asking(CAT), True) == Place(2)


def test_sampling_that_must_be_repeatable_starts_anew():
    assert kept(asking(CAT)).take(asking(CAT), False).step == 0


def test_an_answer_that_was_cut_leaves_nothing_to_go_on_with():
    sessions = Sessions(4)
    sessions.keep(sessions.take(asking(CAT), True), asking(CAT), is_whole=False, tokens=17)
    assert sessions.take(asking(CAT), True).step == 0


def full() -> Sessions:
    """As many sessions as may be kept, all about the cat."""
    sessions = Sessions(2)
    for place in [sessions.take(asking(CAT), True) for _ in range(2)]:
        sessions.keep(place, asking(CAT), is_whole=True, tokens=17)
    return sessions


def test_the_oldest_session_gives_its_id_and_the_common_words_to_a_new_one():
    sessions = full()
    assert [sessions.take(asking(DOG), True), sessions.take(asking(DOG), True)] == [Place(1, 10), Place(3)]
    assert full().take(Prompt([1, 2, 3]), True) == Place(1, 2)  # one token at least is left to compute
    assert full().take(Prompt([5, 6, 7]), True) == Place(1)


def test_what_must_be_repeatable_or_is_unsure_takes_the_oldest_sessions_id_alone():
    assert full().take(asking(DOG), False) == Place(1)
    sessions = full()
    sessions.keep(sessions.take(asking(DOG), True), asking(DOG), is_whole=False, tokens=17)
    assert sessions.take(asking(DOG), True) == Place(1)


def test_without_room_for_any_every_answer_has_a_new_session():
    sessions = kept(asking(CAT), limit=0)
    assert [sessions.take(asking(CAT), True) for _ in range(2)] == [Place(2), Place(3)]


def test_kept_sessions_and_their_tokens_are_counted_until_one_is_taken():
    sessions = Sessions(2)
    cat, dog, bird = (sessions.take(asking(CAT), False) for _ in range(3))
    sessions.keep(cat, asking(CAT), is_whole=True, tokens=20)
    sessions.keep(dog, asking(DOG), is_whole=False, tokens=30)
    assert (len(sessions), sessions.tokens()) == (2, 50)
    sessions.keep(dog, asking(DOG), is_whole=True, tokens=35)
    assert (len(sessions), sessions.tokens()) == (2, 55)
    assert sessions.take(asking(CAT), True).session_id == cat.session_id
    assert (len(sessions), sessions.tokens()) == (1, 35)
    unkept = Sessions(0)
    unkept.keep(bird, asking(CAT), is_whole=True, tokens=20)
    assert (len(unkept), unkept.tokens()) == (0, 0)
