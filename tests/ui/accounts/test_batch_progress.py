"""How far batches are, by what the API tells and what was seen before."""

import pytest

from lingbi_ui.accounts import charts, figures
from lingbi_ui.accounts.batches.pages import Filter
from lingbi_ui.accounts.batches.progress import LEAST_S, MAX_KNOWN, SPAN_S, Paces, batch_of
from lingbi_ui.accounts.words import WORDS, say

BEGUN = 1000.0
TOLD = {
    "id": "batch_1",
    "endpoint": "/v1/completions",
    "completion_window": "24h",
    "created_at": 900,
    "in_progress_at": BEGUN,
    "expires_at": 90_000,
    "completed_at": None,
    "cancelled_at": None,
    "errors": None,
    "input_file_id": "file-1",
    "output_file_id": None,
    "error_file_id": None,
}


class Clock:
    now = BEGUN

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def paces(clock):
    return Paces(clock)


def told(status: str, total: int, completed: int, failed: int = 0, **more) -> dict:
    counts = {"total": total, "completed": completed, "failed": failed}
    return TOLD | {"status": status, "request_counts": counts} | more


def test_a_rate_is_that_since_the_beginning_and_then_that_of_the_last_minutes(paces, clock):
    clock.now += 100
    batch = batch_of(told("in_progress", 1000, 40, 10), paces)
    assert (batch.done, batch.per_s, batch.left_s) == (50, 0.5, 1900)
    for _ in range(int(SPAN_S / 20) + 10):  # nothing more is answered while somebody looks
        clock.now += 20
        batch = batch_of(told("in_progress", 1000, 40, 10), paces)
    assert batch.per_s == 0 and batch.left_s is None
    clock.now += 20
    assert 0 < batch_of(told("in_progress", 1000, 140, 10), paces).per_s <= 100 / (SPAN_S - LEAST_S)


def test_looks_in_quick_succession_do_not_make_a_rate_jump(paces, clock):
    clock.now += SPAN_S * 3
    rates = []
    for done in (300, 301, 309):
        clock.now += 1
        rates.append(paces.of("a", done, BEGUN))
    assert max(rates) < 0.2, rates
    clock.now = BEGUN
    assert paces.of("b", 0, BEGUN) is None, "no time has passed"


def test_only_the_batches_that_somebody_looked_at_last_are_remembered(paces, clock):
    clock.now += 60
    for number in range(MAX_KNOWN + 5):
        paces.of(str(number), 1, BEGUN)
    assert len(paces._looks) == MAX_KNOWN and "0" not in paces._looks


def test_a_batch_that_has_ended_has_its_mean_rate_and_no_time_left(paces):
    batch = batch_of(told("completed", 100, 90, 10, completed_at=BEGUN + 50, output_file_id="file-2"), paces)
    assert (batch.per_s, batch.left_s, batch.ended_at, batch.is_running) == (2, None, BEGUN + 50, False)
    assert batch.files == {"input": "file-1", "output": "file-2"} and not batch.can_be_cancelled


def test_a_batch_that_was_none_tells_its_faults(paces):
    fault = {"code": "invalid_json_line", "message": "no JSON", "line": 2, "param": None}
    batch = batch_of(told("failed", 0, 0, in_progress_at=None, errors={"data": [fault]}), paces)
    assert (batch.faults, batch.per_s) == ((fault,), None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "less than a minute"), (61, "2 min"), (3600, "1 h 0 min"), (3700, "1 h 2 min"), (200_000, "2 d 8 h")],
)
def test_a_time_is_told_as_people_say_it(seconds, text):
    word, values = figures.span(seconds)
    assert say("en", word, **values) == text and word in WORDS


def test_a_rate_is_told_by_the_minute():
    assert [figures.a_minute(rate) for rate in (0.02, 0.5, 30)] == ["1.2", "30", "1,800"]


def test_the_bar_of_a_batch():
    drawn = charts.progress(30, 20, 100)
    assert 'class="used" width="30.00"' in drawn and 'class="bad" x="30.00" width="20.00"' in drawn
    assert 'class="used" width="0.00"' in charts.progress(0, 0, 0)


def test_what_makes_no_sense_in_an_address_is_left_out():
    wanted = Filter.of({"status": "x", "after": "'; drop", "owner": " ui/alice ", "live": "1"})
    assert wanted == Filter(owner="ui/alice", is_live=True)
    assert wanted.query(is_live=False) == {"owner": "ui/alice"} and wanted.query()["live"] == "1"
    assert Filter.of({"after": "batch_0a", "status": "failed"}).query() == {"after": "batch_0a", "status": "failed"}
