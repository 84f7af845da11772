"""The abuse run in short: honest answers stay right while all attacks run at once; and that the run can fail."""

from dataclasses import replace

import pytest

from tests.load.abuse import gradio_page
from tests.load.abuse.attackers import ATTACKS
from tests.load.abuse.bounds import MAX_MEMORY_MIB, MAX_WAIT_S
from tests.load.abuse.processes import Seen
from tests.load.abuse.report import BASELINE, Phase, as_json, faults, table
from tests.load.abuse.run import run_phase
from tests.load.abuse.stack import own_stack
from tests.load.abuse.visitors import FAILED, KINDS, RIGHT, WRONG, Answer

CALM_S, ATTACKED_S, PAUSE_S = 4, 8, 1
# Other tests run on the same cores, so times are only bounded by what nobody would wait for.
LONGEST_S = MAX_WAIT_S / 2


def test_honest_answers_are_right_without_attack_and_under_all_attacks():
    with own_stack(len(KINDS)) as stack:
        calm = run_phase(stack, BASELINE, [], CALM_S, PAUSE_S)
        attacked = run_phase(stack, "together", ATTACKS, ATTACKED_S, PAUSE_S)
    for phase in (calm, attacked):
        assert {(answer.way, answer.about) for answer in phase.answers} == set(KINDS)
        assert [answer for answer in phase.answers if answer.outcome != RIGHT] == []
        assert phase.seen.restarts == 0 and phase.longest_s < LONGEST_S and phase.rest_s is not None
        assert {part: phase.seen.memory_mib[part] < most for part, most in MAX_MEMORY_MIB.items()} == dict.fromkeys(
            MAX_MEMORY_MIB, True
        )
    assert set(attacked.attacks) == set(ATTACKS) and all(attacked.attacks.values()), "every attack did something"


def answers(first_s: float = 0.1, **options) -> list[Answer]:
    right = Answer("stream", "text", 100.0, 100.0 + first_s, 100.5 + first_s, RIGHT)
    return [replace(right, about=about, **options) for about in ("text", "picture")]


def phase_of(found: list[Answer], seen: Seen | None = None, rest_s: float | None = 1.0, **attacks) -> Phase:
    return Phase("x", found, seen or Seen({"page": 100.0}, 1.0, {"page": [7]}), rest_s, attacks)


CALM = phase_of(answers())


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (phase_of([]), "0 of 0 honest answers"),
        (phase_of(answers(outcome=WRONG, fault="blue")), "2 of 2 honest answers"),
        (phase_of(answers(outcome=FAILED, first=None, ended=100.6, fault="429")), "2 of 2 honest answers"),
        (phase_of(answers(ended=100.0 + MAX_WAIT_S + 1)), "an answer took 31.0 s"),
        (phase_of(answers(first_s=1.2)), "first token of a text, p95: 1.20 s, at most 1.00"),
        (phase_of(answers(first_s=2.1)), "first token of a picture, p95: 2.10 s, at most 2.00"),
        (phase_of(answers(), Seen({"page": 2000.0}, 1.0, {})), "page took 2000 MiB"),
        (phase_of(answers(), Seen({}, 1e6, {})), "files took 1000000 MiB"),
        (phase_of(answers(), Seen({}, 1.0, {"worker": [7, 8]})), "1 restarts"),
        (phase_of(answers(), rest_s=None), "did not come to rest"),
        (phase_of(answers(), rest_s=11.0), "came to rest after 11.0 s"),
        (phase_of(answers(), old_login={"200": 9, "401": 1}), "9 requests of a removed login"),
        (phase_of(answers(), uploads={}), "uploads sent nothing"),
    ],
)
def test_every_bound_that_is_broken_is_named(phase, said):
    assert any(fault.startswith(said) for fault in faults(phase, CALM)), faults(phase, CALM)
    assert as_json([CALM, phase])[1]["faults"] == faults(phase, CALM)
    assert len(table([CALM, phase]).splitlines()[2].split()) == len(table([CALM]).splitlines()[1].split())


def test_a_phase_within_the_bounds_has_no_faults():
    assert faults(CALM, CALM) == []
    assert faults(phase_of(answers(first_s=0.9), old_login={"401": 9}), CALM) == []


def test_a_slower_machine_has_a_later_first_token():
    calm, attacked = phase_of(answers(first_s=1.5)), phase_of(answers(first_s=2.9))
    assert faults(attacked, calm) == [] and len(faults(attacked, CALM)) == 2


def test_the_pages_answer_is_read_from_its_edits():
    outputs = gradio_page.merged([], [{"submit_btn": False}, [{"role": "user", "content": [{"text": "hello"}]}]])
    assert gradio_page.answer_in(outputs) == ""
    said = {"role": "assistant", "metadata": None, "content": [{"text": "Hel", "type": "text"}]}
    outputs = gradio_page.merged(outputs, [[["delete", ["submit_btn"], None]], [["add", [1], said]]])
    outputs = gradio_page.merged(outputs, [[], [["append", [1, "content", 0, "text"], "lo"]]])
    assert outputs[0] == {} and gradio_page.answer_in(outputs) == "Hello"
    outputs = gradio_page.merged(outputs, [[], [["replace", [1, "content", 0, "text"], "*Reading 50 %*"]]])
    assert gradio_page.answer_in(outputs) == "", "how far the prompt is read is no answer"
    outputs = gradio_page.merged(outputs, [[], [["replace", [1, "metadata"], {"id": "failed"}]]])
    with pytest.raises(gradio_page.PageRefused):
        gradio_page.answer_in(outputs)
