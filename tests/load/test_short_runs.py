"""The long runs in short, and that each of them can fail."""

import asyncio

import psutil
import pytest

from lingbi.faults import PictureError
from lingbi.supervision import Supervisor
from tests.load import fuzz
from tests.load.mixed import ALLOWED_GROWTH_MIB, Run, at_rest
from tests.load.overhead import MAX_COST, MAX_FIRST_TOKEN_MS
from tests.load.sides import judge
from tests.server.bad_pictures import SCENE


def run_of(server: dict) -> Run:
    (process,) = Supervisor(server["state_dir"]).workers_left()
    return Run(server["url"], server["key"], psutil.Process(process.pid), seed=3)


def test_300_mixed_requests(demo_server):
    run = run_of(demo_server)
    asyncio.run(run.all(300, 32))
    assert run.done == 300 and run.faults == [] and run.samples
    assert at_rest(demo_server["url"], run.process)[0] == 0


def test_the_mixed_run_sees_wrong_answers_wrong_codes_and_growth(demo_server):
    run = run_of(demo_server)
    run.good = [("named wrongly", body, SCENE) for _, body, scene in run.good if scene and scene != SCENE]
    run.hostile = [
        ("refused otherwise", body, headers, 418) for _, body, headers, status in run.hostile if status == 400
    ]
    asyncio.run(run.all(30, 8))
    assert len(run.faults) == 30
    run.samples = [(1000, 500.0, 20, 80), (2000, 500.0 + ALLOWED_GROWTH_MIB + 1, 20, 80)]
    assert "memory grew" in run.leaks()[0]


def test_1500_spoilt_pictures():
    outcomes = fuzz.fuzz_pictures(1500)
    assert sum(outcomes.values()) == 1500 and outcomes["decoded"] and outcomes["broken"] and outcomes["format"]


def test_the_picture_fuzzer_stops_at_what_is_no_refusal(monkeypatch):
    def broken(data, budget):
        raise ZeroDivisionError if len(data) % 7 == 0 else PictureError("x", reason="x")

    monkeypatch.setattr(fuzz, "decode", broken)
    with pytest.raises(ZeroDivisionError):
        fuzz.fuzz_pictures(200)


def test_150_odd_requests():
    outcomes = fuzz.fuzz_messages(150)
    assert sum(outcomes.values()) == 150 and outcomes["200"] and outcomes["400"]


def test_overhead_is_judged_by_the_rounds_ratios():
    found = {
        "requests_per_s": {"lingbi": [99.0, 49.0], "bare": [100.0, 50.0]},
        "first_token_ms": {"lingbi": [12.0, 22.0], "bare": [10.0, 20.0]},
    }
    report = judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)
    assert report["within_bounds"] and report["added_first_token_ms"] == 2
    found["requests_per_s"]["lingbi"] = [97.0, 48.0]
    assert not judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]
    found["requests_per_s"]["lingbi"], found["first_token_ms"]["lingbi"] = [100.0, 50.0], [16.0, 26.0]
    assert not judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]
