"""A trace is read as it was meant: what ran on the GPU, when nothing did, and what the host did then."""

import pytest

from tests.load.timeline import WINDOW, Question, Timeline, kind_of, report, table


def event(name: str, category: str, start: float, duration: float) -> dict:
    return {"ph": "X", "name": name, "cat": category, "ts": start, "dur": duration, "tid": 1}


EVENTS = [
    {"ph": "M", "name": "process_name"},
    event(WINDOW, "user_annotation", 1000, 10_000),
    event("an earlier kernel", "kernel", 0, 900),
    event("Memcpy HtoD (Pageable -> Device)", "gpu_memcpy", 3000, 1000),
    event("void turbomind::norm<half>(half*)", "kernel", 6000, 500),
    event("ampere_fp16_s16816gemm", "kernel", 4000, 2000),
    event("a side stream's gemm", "kernel", 5000, 500),  # at the same time as the one before
    event("cudaMemcpyAsync", "cuda_runtime", 2500, 700),
    event("cudaStreamSynchronize", "cuda_runtime", 6400, 2000),
]


def test_stretches_in_which_nothing_runs():
    timeline = Timeline(EVENTS)
    assert timeline.idle() == [(1000, 3000), (6500, 11_000)]
    assert timeline.idle_ms() == pytest.approx(6.5)
    assert timeline.before_and_after(1000, 3000) == ("-", "Memcpy HtoD ")
    assert timeline.before_and_after(6500, 11_000) == ("norm", "-")


def test_what_the_host_did_in_a_stretch():
    timeline = Timeline(EVENTS)
    assert timeline.host_in(1000, 3000) == {"cudaMemcpyAsync": pytest.approx(0.5)}
    assert timeline.host_in(6500, 11_000) == {"cudaStreamSynchronize": pytest.approx(1.9)}


def test_kernels_are_summed_by_kind():
    kinds = Timeline(EVENTS).kinds()
    assert kinds == {
        "copies and fills": pytest.approx(1.0),
        "matrix products": pytest.approx(2.5),
        "activation, norms, masks": pytest.approx(0.5),
    }
    assert kind_of("flash_fwd_kernel") == "attention, keys and values" and kind_of("sort") == "others"


def test_the_report_has_the_sums_and_the_longest_stretch_first():
    lines = report([Timeline(EVENTS)]).splitlines()
    assert lines[0].split() == ["window", "10.00", "ms"]
    assert "nothing on the GPU              6.50 ms" in lines
    assert lines[-2] == "  4.50 ms at   5.50  norm … -: cudaStreamSynchronize 1.90"


def test_questions_are_told_in_groups_by_their_medians():
    questions = [Question(number, 2 * number, 100 if number == 1 else 0) for number in range(1, 10)]
    _, first, last = table(questions).splitlines()
    assert first.split() == ["1-8", "4.5", "ms", "9.0", "ms", "0"]
    assert last.split() == ["9-9", "9.0", "ms", "18.0", "ms", "0"]
