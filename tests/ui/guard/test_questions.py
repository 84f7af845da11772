"""What a question's body may be, before Gradio reads it."""

import json
import time

import pytest

from lingbi_ui.guard.questions import MAX_TURNS, Unfit, cancel_of, press_of, question_of
from lingbi_ui.guard.routes import MAX_QUESTION_BYTES
from tests.ui.conftest import OPTIONS, said

KNOWN = frozenset((3, 4))
FINE = {"data": [said("/files/a.png"), *OPTIONS], "fn_index": 3, "session_hash": "abc", "trigger_id": 7}
NESTED = '{"data":' + "[" * 200_000 + "]" * 200_000 + "}"


def body(**changes) -> bytes:
    return json.dumps(FINE | changes).encode()


def test_only_known_fields_reach_gradio():
    sent = body(event_data={"index": 0, "value": "x", "_selected": 1}, batched=True, event_id="z", oauth_token="t")
    found = question_of(sent, KNOWN)
    assert found == FINE | {"event_data": {"index": 0, "value": "x"}}


def test_a_files_url_is_left_out():
    part = {"type": "file", "file": {"path": "/a.png", "url": "data:image/png;base64,AAAA", "is_stream": True}}
    (turns,) = question_of(body(data=[[{"role": "user", "content": [part]}]]), KNOWN)["data"]
    assert turns[0]["content"] == [{"type": "file", "file": {"path": "/a.png"}}]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"[]",
        b"\xff\xfe{}",
        b'{"data": NaN}',
        NESTED.encode(),
        body(fn_index=9),
        body(fn_index=True),
        body(session_hash="a b"),
        body(session_hash="x" * 65),
        body(session_hash=None),
        body(data={}),
        body(event_data=[]),
        body(data=[1 << 70]),
        body(data=["\ud800"]),
        b'{"data": [1e999], "fn_index": 3, "session_hash": "a"}',
        b'{"data": [' + b"9" * 5000 + b'], "fn_index": 3, "session_hash": "a"}',
    ],
)
def test_what_no_page_sends_is_refused(sent):
    with pytest.raises(Unfit):
        question_of(sent, KNOWN)


@pytest.mark.parametrize(
    "data",
    [
        [[{"role": "user", "content": "x"}] * (MAX_TURNS + 1)],
        [[[["x"] * 50] * 50] * 50],
        [[[[[[[[[[[[[[[]]]]]]]]]]]]]]],
    ],
)
def test_long_wide_and_deep_histories_are_too_large(data):
    with pytest.raises(Unfit) as found:
        question_of(body(data=data), KNOWN)
    assert (found.value.word, found.value.status) == ("page_large", 413)


def test_a_conversation_of_sixteen_pictures_and_a_whole_session_of_text_fits():
    file = {"path": "/var/lib/lingbi-ui/" + "0" * 64 + "/" + "图" * 40 + ".png", "orig_name": "图" * 255, "size": 1}
    turns = [{"role": "user", "content": [{"type": "file", "file": file}]} for _ in range(16)]
    turns += [{"role": "assistant", "content": [{"type": "text", "text": "图" * 400}]}] * 160
    sent = json.dumps({**FINE, "data": [turns, *OPTIONS]}, ensure_ascii=False).encode()
    assert len(sent) < MAX_QUESTION_BYTES / 2 and question_of(sent, KNOWN)


@pytest.mark.parametrize("filling", [b"1,", b"[],", b'"",', b'{"a":1},', b"[", b'{"a":[', b'"\\u0000",', b"1e9,"])
def test_no_body_takes_long(filling):
    """As large as the route lets one be, the best of three times; the whole loop waits while one is read."""
    sent = b'{"fn_index":3,"session_hash":"a","data":[' + filling * (MAX_QUESTION_BYTES // len(filling) - 50) + b"0]}"
    times = []
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(Unfit):
            question_of(sent, KNOWN)
        times.append(time.process_time() - began)
    assert min(times) < 0.1, times


def test_a_button_sends_nothing_along():
    assert press_of(body(data=["x"], event_data={"index": 1}), KNOWN) == {
        "data": [],
        "fn_index": 3,
        "session_hash": "abc",
    }
    with pytest.raises(Unfit):
        press_of(body(fn_index=5), KNOWN)


def test_a_cancellation():
    fine = {"session_hash": "a", "event_id": "b", "fn_index": 3}
    assert cancel_of(json.dumps(fine | {"more": 1}).encode()) == fine
    for change in ({"fn_index": "3"}, {"fn_index": True}, {"event_id": None}, {"session_hash": ""}):
        with pytest.raises(Unfit):
            cancel_of(json.dumps(fine | change).encode())
