"""Which requests may begin, decided from numbers alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas.decision import TRY_AGAIN_S, Asked, Standing, decide, decide_unseen

NOW, RESET = 1000.0, 1030
KEY = KeyFacts("alice", group="vision")


def standing(measure="tokens", most=100, used=0, held=0, is_beyond=False, **limit):
    limit = {"subject_kind": "key", "subject": "alice", "period": "minute"} | limit
    return Standing(Limit(measure=measure, most=most, **limit), RESET, used, held, is_beyond)


def verdict(*standings, tokens=10, images=0):
    return decide(KEY, standings, Asked(tokens, images), NOW)


@pytest.mark.parametrize(
    "found, asked, why",
    [
        (standing(used=90), {}, None),
        (standing(used=50, held=40), {}, None),
        (standing(used=99), {}, None),  # beyond by the one request that may
        (standing(used=99), {"tokens": 5000}, None),
        (standing(used=100), {}, "used up"),
        (standing(used=5000), {}, "used up"),
        (standing(used=60, held=40), {}, "held"),
        (standing(used=95, is_beyond=True), {}, "held"),
        (standing(used=90, is_beyond=True), {}, None),  # it fits beside the one that goes beyond
        (standing(most=0), {}, "too large"),
        (standing("requests", used=99), {}, None),
        (standing("requests", used=100), {}, "used up"),
        (standing("requests", used=60, held=40), {}, "held"),
        (standing("requests", most=0), {}, "too large"),
        (standing("images", used=100), {}, None),  # a question about no image
        (standing("images", most=0), {}, None),
        (standing("images", used=98), {"images": 2}, None),
        (standing("images", used=99), {"images": 2}, "used up"),
        (standing("images", used=90, held=9), {"images": 2}, "held"),
        (standing("images", most=4), {"images": 5}, "too large"),
        (standing("images", most=0), {"images": 1}, "too large"),
    ],
)
def test_one_limit(found, asked, why):
    denial = verdict(found, **asked).denial
    assert (denial and denial.why) == why


def test_without_a_limit_everything_may_begin():
    assert verdict(tokens=10**30).denial is None


def test_every_limit_must_agree_and_the_longest_wait_is_told():
    minute, day = standing(used=100), standing(used=100, period="day")
    day = Standing(day.limit, RESET + 3600, 100)
    assert verdict(standing(most=10**6), minute, day).denial.standing is day
    held = standing(used=60, held=40)
    assert verdict(held, minute).denial.standing is minute
    never = standing("images", most=0, period="month")
    assert verdict(held, day, never, images=1).denial.standing is never


@pytest.mark.parametrize(
    "found, wait_s",
    [(standing(used=100), 30), (standing(used=60, held=40), TRY_AGAIN_S), (standing(most=0), None)],
)
def test_the_wait_lasts_until_the_reset_or_until_running_requests_may_have_ended(found, wait_s):
    assert verdict(found).denial.wait_s(NOW) == wait_s


@pytest.mark.parametrize(
    "found, why",
    [
        (standing(used=100), "used up"),
        (standing("requests", used=100), "used up"),
        (standing(most=0), "too large"),
        (standing(used=60, held=40), None),  # what was held may be free by now
        (standing(used=99, is_beyond=True), None),
        (standing("images", used=100), None),  # it may have none
        (replace(standing(used=100), resets_at=NOW), None),
    ],
)
def test_of_a_request_that_nobody_has_seen_only_what_is_used_counts(found, why):
    denial = decide_unseen([found], NOW).denial
    assert (denial and denial.why) == why


def test_a_wait_is_never_of_no_time():
    denial = verdict(standing(used=100)).denial
    assert denial.wait_s(RESET - 0.2) == 1
    assert denial.wait_s(RESET + 5) == 1  # the period ended while it was decided


def test_who_may_go_beyond_is_told_by_subject():
    group = standing(most=1000, subject_kind="group", subject="vision")
    assert verdict(standing(most=5), group).beyond == {"key:alice"}
    assert verdict(standing(most=500), standing(most=5, subject_kind="group", subject="vision")).beyond == {
        "group:vision"
    }
    assert verdict(standing(most=500), group).beyond == frozenset()
    assert verdict(standing(most=5, subject_kind="member", subject="vision")).beyond == {"key:alice"}


# What a fleet does: a worker lets a request in that takes at most `most` and takes `real`, or one of its requests ends.
STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=120
)


@given(STEPS, st.integers(1, 200))
def test_a_fleet_of_four_exceeds_a_limit_by_one_running_request_a_worker_at_most(steps, most):
    running = [[] for _ in range(4)]  # by worker: (most, real, whether it may go beyond)
    used, largest = 0, [0] * 4
    for worker, ends, estimate, part in steps:
        if ends and running[worker]:
            used += running[worker].pop(0)[1]
            continue
        held = sum(size for there in running for size, _, is_beyond in there if not is_beyond)
        is_beyond = any(beyond for _, _, beyond in running[worker])
        found = verdict(standing(most=most, used=used, held=held, is_beyond=is_beyond), tokens=estimate)
        if found.denial is None:
            real = max(1, round(estimate * part))
            running[worker].append((estimate, real, bool(found.beyond)))
            largest[worker] = max(largest[worker], real if found.beyond else 0)
            assert sum(beyond for _, _, beyond in running[worker]) <= 1
    used += sum(real for there in running for _, real, _ in there)
    assert used <= most + sum(largest)


@given(STEPS, st.integers(1, 200))
def test_whoever_is_alone_gets_all_of_a_limit(steps, most):
    used = 0
    for _, _, estimate, part in steps:
        if verdict(standing(most=most, used=used), tokens=estimate).denial is None:
            used += max(1, round(estimate * part))
        else:
            assert used >= most
