"""What a question that fails leaves in the log: a line, and a traceback once for what fails in the page's own code."""

import pytest

from tests.ui.conftest import ASKED, OPTIONS, running_page

TIMES = 5


@pytest.fixture(scope="module")
def failing(fake_api, tmp_path_factory):
    """A page of its own, whose log nobody else writes to."""
    with running_page(tmp_path_factory.mktemp("failing"), fake_api.url) as found:
        yield found


def log_of(page, event: str, data: list) -> str:
    """What the page's log says of a question that is asked several times."""
    before = len(page.log.read_text())
    outcomes = [page.send(event, data)[-1] for _ in range(TIMES)]
    assert not any(outcome["success"] for outcome in outcomes), "it does not fail"
    return page.log.read_text()[before:]


def test_what_gradio_refuses_of_a_question_is_a_line(failing):
    told = log_of(failing, "retry", [[{"role": "user", "content": 5}], *OPTIONS])
    assert "Traceback" not in told and told.count("a question failed with ") == TIMES, told
    assert len(told.splitlines()) == TIMES


def test_what_fails_in_the_pages_own_code_is_shown_once_in_full(failing):
    told = log_of(failing, "submit", [None, [], *OPTIONS])
    assert told.count("Traceback") == 1 and told.count("a question failed with ") == TIMES, told
    assert "in talk.py, line " in told.splitlines()[-1]


def test_what_a_visitor_wrote_is_not_in_the_log(failing):
    told = log_of(
        failing, "retry", [[{"role": "user", "content": "secret words", "metadata": "secret words"}], *OPTIONS]
    )
    assert "secret" not in told and told.count("a question failed with ") == TIMES, told


def test_a_page_on_which_questions_failed_answers(failing):
    assert "an answer" in str(failing.send("retry", [ASKED, *OPTIONS]))
