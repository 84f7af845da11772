"""Reports say what was counted, by every dimension, from whatever rows they read it."""

import itertools
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.entries import Counts
from lingbi.accounts.usage.reports import DIMENSIONS, TIMES, answer, question
from lingbi.accounts.usage.spans import span_of
from lingbi.errors import ConfigurationError
from tests.server.accounts.usage.rows import entries, expected, fill, value

KOLKATA = ZoneInfo("Asia/Kolkata")  # its days begin at half an hour of UTC
SPANS = [
    (None, None),
    ("2026-01-20", "2026-04-03"),
    ("2026-02", "2026-03"),
    ("2026-02-03", "2026-02-17"),
    ("2026-03", None),
]
BYS = [
    by
    for count in range(4)
    for by in itertools.combinations(DIMENSIONS, count)
    if len(set(by) & set(TIMES)) <= 1 and "hour" not in by
]


@pytest.fixture
def found():
    return entries(KOLKATA)


@pytest.fixture
def database(any_database, found):
    filled = fill(any_database, KOLKATA, found)
    yield filled
    filled.engine.dispose()


def asked(database, by: str, since=None, until=None, top=None, **only) -> dict:
    """{values of the dimensions: Counts} of a report."""
    report = answer(database, question(by, span_of(since, until, 0, KOLKATA), only, top), KOLKATA)
    names = [name for name in by.split(",") if name]
    rows = {tuple(row[name] for name in names): Counts(*(row[name] for name in Counts._fields)) for row in report.rows}
    assert len(rows) == len(report.rows)
    return rows


def within(since, until):
    return lambda entry: (since or "") <= value(entry, "day", KOLKATA) and value(entry, "day", KOLKATA)[
        : len(until or "")
    ] <= (until or "")


def test_every_report_has_exactly_what_was_counted(database, found):
    for by in BYS:
        for since, until in SPANS:
            right = expected(found, by, within(since, until), KOLKATA)
            assert asked(database, ",".join(by), since, until) == right, (by, since, until)


def test_hours_are_told_apart_and_named_by_the_labs_clock(database, found):
    for by in ("hour", "hour,key", "hour,owner,model"):
        right = expected(found, tuple(by.split(",")), lambda entry: True, KOLKATA)
        assert asked(database, by) == right
    assert next(iter(asked(database, "hour")))[0].endswith(":30+05:30")


@pytest.mark.parametrize(
    "only",
    [
        {"key": "a"},
        {"owner": "李"},
        {"group": "lab"},
        {"model": "demo"},
        {"status": "429"},
        {"owner": "李", "model": "demo"},
    ],
)
def test_reports_of_some_only(database, found, only):
    def keep(entry):
        return all(str(value(entry, name, KOLKATA)) == wanted for name, wanted in only.items())

    for by in ("", "key", "model,day", "month", "hour", "group"):
        right = expected(found, tuple(filter(None, by.split(","))), keep, KOLKATA)
        assert asked(database, by, **only) == right, by


def test_the_top_are_those_with_most_tokens(database, found):
    right = expected(found, ("key",), lambda entry: True, KOLKATA)
    tokens = sorted(right, key=lambda key: -(right[key].prompt_tokens + right[key].completion_tokens))
    assert list(asked(database, "key", top=3)) == tokens[:3]


def test_a_report_that_is_cut_says_so(database):
    span = span_of(None, None, 0, KOLKATA)
    whole = question("key,day", span, {})
    count = len(answer(database, whole, KOLKATA).rows)
    cut = answer(database, type(whole)(whole.by, span, {}, most_rows=count - 1), KOLKATA)
    assert (len(cut.rows), cut.is_cut) == (count - 1, True)
    assert not answer(database, type(whole)(whole.by, span, {}, most_rows=count), KOLKATA).is_cut


def test_of_nothing_the_sum_is_nothing(database):
    assert asked(database, "", since="2030-01") == {(): Counts()}
    assert asked(database, "key", since="2030-01") == {}
    assert asked(database, "key", owner="'; drop table keys") == {}


@pytest.mark.parametrize(
    ("by", "since", "only", "fault"),
    [
        ("key,colour", None, {}, "by 'colour': usage is known by hour, day"),
        ("day,hour", None, {}, "take one of them"),
        ("day", "24h", {}, "may have no hour then"),
        ("key", None, {"status": "good"}, "is no status of an answer"),
    ],
)
def test_what_cannot_be_asked_is_refused(by, since, only, fault):
    with pytest.raises(ConfigurationError, match=fault):
        question(by, span_of(since, None, 0, KOLKATA), only)
    with pytest.raises(ConfigurationError, match="above 0"):
        question("key", span_of(None, None, 0, KOLKATA), {}, top=0)
