"""The page before several models: which one is asked, what an answer says of it, and what there is to choose from."""

import pytest

from lingbi.launch.supervision import wait_until
from lingbi_ui import conversation
from tests.ui.conftest import ASKED, OPTIONS, READY, entry
from tests.ui.test_talk import shown

VL, HD = "internlm-xcomposer2-vl-7b", "internlm-xcomposer2-4khd-7b"
CHINESE = {"Accept-Language": "zh-CN"}


@pytest.fixture
def several(page, fake_api):
    """The page, before two models of which the second is ready."""
    fake_api.offer = [entry(VL, "asleep", image_tokens=[1225, 1225]), entry(HD)]
    assert wait_until(lambda: len(page.client.get("/state").json().get("models", [])) == 2, 5)
    yield page
    fake_api.offer = []
    assert wait_until(lambda: "models" not in page.client.get("/state").json(), 5)


def ask(page, model, history=ASKED):
    return page.send("retry", [history, *OPTIONS[:-1], model])


def test_the_state_tells_the_models_with_their_facts(several):
    state = several.client.get("/state").json()
    assert (state["model"], state["phase"]) == (HD, "ready")
    assert [(model["name"], model["phase"]) for model in state["models"]] == [("vl-7b", "asleep"), ("4khd-7b", "ready")]
    assert state["models"][0]["facts"][0] == "A picture takes 1225 tokens of 4096"


@pytest.mark.parametrize(("picked", "asked", "name"), [(VL, VL, "vl-7b"), ("", HD, "4khd-7b")])
def test_the_picked_model_is_asked_and_its_answer_says_so(several, fake_api, picked, asked, name):
    messages = ask(several, picked)
    assert fake_api.asked[-1]["model"] == asked
    assert f"**`{name}`**\\n\\nan answer" in shown(messages) and f'"id": "by {name}"' in shown(messages)


def test_what_an_answer_says_of_its_model_is_not_sent_to_the_next_one(several, fake_api):
    history = [*ASKED, conversation.answer_by("vl-7b", "a cat"), *ASKED]
    ask(several, HD, history)
    assert fake_api.asked[-1]["messages"][1] == {"role": "assistant", "content": "a cat"}


@pytest.mark.parametrize("picked", ["gone", "x" * 10_000, 7, ["a"], {"a": 1}])
def test_a_model_that_is_not_served_is_a_sentence_in_both_languages(several, fake_api, picked):
    messages = ask(several, picked)
    if isinstance(picked, str):
        assert fake_api.asked == [] and "This model is no longer served here. Choose another" in shown(messages)
        several.client.headers.update(CHINESE)
        try:
            assert "这里已不再提供这个模型" in shown(ask(several, picked))
        finally:
            del several.client.headers["Accept-Language"]
    else:  # no page sends that: it is as if nothing were picked, or Gradio refuses it
        assert [body["model"] for body in fake_api.asked] in ([], [HD])


def test_a_model_that_the_gateway_no_longer_knows_is_the_same_sentence(several, fake_api):
    fake_api.refusal = 404, {"error": {"code": "model_not_found", "message": "the model is not served here"}}
    assert "This model is no longer served here" in shown(ask(several, VL))


def test_a_model_that_is_loaded_first_tells_how_far_it_is(several, fake_api):
    fake_api.comments = ["waiting for the model's turn", "loading the model, 40%", "prompt 1/2", "anything else"]
    told = shown(ask(several, VL))
    for words in ("it is its turn next", "The model is being loaded: 40 %", "Looking at the question: 50 %"):
        assert words in told
    assert "anything else" not in told


def test_where_nothing_answers_the_models_are_away_and_stay_to_be_chosen(several, fake_api):
    fake_api.late_s = 4
    assert wait_until(lambda: several.client.get("/state").json()["phase"] == "away", 15)
    assert [model["phase"] for model in several.client.get("/state").json()["models"]] == ["away", "away"]
    fake_api.late_s = 0
    assert wait_until(lambda: several.client.get("/state").json()["phase"] == "ready", 15)


def test_one_model_alone_is_as_ever(page, fake_api):
    fake_api.offer = [entry(READY["model"])]
    messages = ask(page, "")
    assert fake_api.asked[-1]["model"] == READY["model"] and "**" not in shown(messages)
    assert "models" not in page.client.get("/state").json()
