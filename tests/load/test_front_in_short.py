"""The front's load run, in short: that it holds its bounds on streams and memory, and that it can fail."""

import asyncio

from tests.load.front import MAX_COST, MAX_FIRST_TOKEN_MS, measure_streams
from tests.load.sides import judge


def test_streams_are_not_late_and_memory_is_small():
    report = asyncio.run(measure_streams())
    assert report["memory"]["streams"] == 200 and report["memory"]["whole_uploads"] == 50
    assert report["memory"]["peak_mib"] < 100 and report["chunks_late"]["gateway"]["median_ms"] < 20


def test_a_slower_gateway_is_seen():
    found = {
        "requests_per_s": {"gateway": [99.0, 49.5], "direct": [100.0, 50.0]},
        "first_token_ms": {"gateway": [12.0, 22.0], "direct": [10.0, 20.0]},
    }
    assert judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]
    found["requests_per_s"]["gateway"] = [97.0, 48.0]
    assert not judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]
    found["requests_per_s"]["gateway"], found["first_token_ms"]["gateway"] = [100.0, 50.0], [14.0, 24.0]
    assert not judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]
