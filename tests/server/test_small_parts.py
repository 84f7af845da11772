"""Stop words, prompts, vitals, the record of restarts, logs for people, what the watchdog asks of the GPU."""

import pynvml
import pytest

from lingbi.api_errors import TooLong
from lingbi.engine.prompts import BREAK, IMAGE, answer_room, plain
from lingbi.engine.stop_words import StopWords
from lingbi.heartbeat import Vitals
from lingbi.http.readiness import GPU_GONE, READY, Readiness
from lingbi.logs import readable
from lingbi.worker import watchdog
from lingbi.worker.restarts import Restarts


def fed(words, *pieces) -> tuple:
    stop = StopWords(words)
    shown = [stop.feed(piece, place == len(pieces)) for place, piece in enumerate(pieces, 1)]
    return [text for text, _ in shown], shown[-1][1]


@pytest.mark.parametrize(
    ("words", "pieces", "shown", "stopped"),
    [
        ([], ["ab", "c"], ["ab", "c"], False),
        (["END"], ["abE", "N", "D more"], ["ab", "", ""], True),
        (["END"], ["abE", "NO"], ["ab", "ENO"], False),
        (["END"], ["abEN"], ["abEN"], False),
        (["b", "ab"], ["xab"], ["x"], True),
        (["aab"], ["aa", "ab"], ["", "a"], True),
        ([""], ["x"], ["x"], False),
    ],
)
def test_stop_words_are_found_across_pieces(words, pieces, shown, stopped):
    assert fed(words, *pieces) == (shown, stopped)


def test_text_cannot_write_special_tokens_or_places_of_images():
    for token in ("<IMAGE_TOKEN>", "[UNUSED_TOKEN_145]", "</s>", "<s>", "<|im_end|>", "<ImageHere>"):
        text = plain(f"a{token}b{IMAGE}{BREAK}c")
        assert token not in text and IMAGE not in text and text.replace(BREAK, "") == f"a{token}bc"
    assert plain("a < b, c > d [1] 中文") == "a < b, c > d [1] 中文"


def test_room_for_the_answer():
    assert answer_room(10, None, 100) == 90 and answer_room(10, 90, 100) == 90
    for prompt, asked in ((100, None), (10, 91), (5000, 1)):
        with pytest.raises(TooLong, match="100"):
            answer_room(prompt, asked, 100)


def test_vitals_tell_what_does_not_move_while_it_has_work():
    now = [0.0]
    vitals = Vitals(clock=lambda: now[0])
    now[0] = 100
    assert vitals.stalled(10) is None and vitals.unproven_s() == 100
    with vitals.encoder.working():
        now[0] = 109
        assert vitals.stalled(10) is None
        now[0] = 111
        assert "vision encoder has not moved for 11 s" in vitals.stalled(10)
        vitals.encoder.beat()
        assert vitals.stalled(10) is None
    now[0] = 200
    assert vitals.stalled(10) is None
    with vitals.model.working(), vitals.model.working():
        now[0] = 220
        assert "language model has not moved for 20 s while 2 wait" in vitals.stalled(10)


def test_restarts_are_remembered_until_an_orderly_end(tmp_path):
    file = tmp_path / "run/worker-0.starts"
    assert Restarts(file).reasons == {}
    Restarts(file).note("wedged")
    assert Restarts(file).reasons == {"crashed": 1, "wedged": 1}
    Restarts(file).forget()
    assert Restarts(file).reasons == {}
    file.write_text("{")
    assert Restarts(file).reasons == {}


def test_logs_for_people():
    line = '{"time": "T", "level": "ERROR", "logger": "a", "message": "b", "exc_info": "Traceback"}'
    assert readable(line) == "T ERROR a: b\nTraceback"
    for other in ("plain words", "[1]", "{}"):
        assert readable(other) == other


@pytest.fixture
def watching(service, monkeypatch):
    monkeypatch.setattr(watchdog, "LOOK_AT_GPU_S", 0)
    service.readiness.enter(READY)
    return watchdog.Watchdog(service, None, None, 30, 120, is_demo=True, uses_gpu=True)


def test_a_gpu_that_goes_and_comes_back_is_told(watching, monkeypatch):
    def gone():
        raise pynvml.NVMLError_Unknown

    readiness: Readiness = watching.service.readiness
    for find, phase in ((gone, GPU_GONE), (list, GPU_GONE), (lambda: ["a GPU"], READY), (list, GPU_GONE)):
        monkeypatch.setattr(watchdog, "find_gpus", find)
        watching._look_at_gpu()
        assert readiness.phase == phase and bool(readiness.error) == (phase == GPU_GONE)
