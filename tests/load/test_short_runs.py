"""The long runs in short, and that each of them can fail."""

import asyncio

import httpx
import psutil
import pytest

from lingbi.api_errors import ImageError
from tests.conftest import running_worker
from tests.load import fuzz
from tests.load.mixed import ALLOWED_GROWTH_MIB, HOSTS, SPARE_FILES, Run, at_rest, hosts, leaks
from tests.load.overhead import MAX_COST, MAX_FIRST_TOKEN_MS
from tests.load.sides import interval, judge
from tests.server.images.bad_images import SCENE


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """One that may reach the hosts of the mix, and waits little for the slow ones."""
    options = {"LINGBI_PICTURE_NETWORKS": "127.0.0.0/8", "LINGBI_PICTURE_FETCH_TIMEOUT_S": "2"}
    with running_worker(tmp_path_factory.mktemp("mixed") / "state", **options) as server:
        yield server


def run_of(server: dict, host_urls: dict | None = None) -> Run:
    return Run(server["url"], server["key"], psutil.Process(server["process"].pid), 3, host_urls)


def test_300_mixed_requests_and_every_host(worker):
    with hosts() as host_urls:
        run = run_of(worker, host_urls)
        asyncio.run(run.all(300, 32))
        assert run.done == 300 and run.faults == [] and run.samples
        run.good, run.hostile = [], [item for item in run.hostile if item[0] in host_urls]
        assert len(run.hostile) == len(HOSTS)
        messages = asyncio.run(messages_of(run))
    assert run.faults == [] and len(set(messages)) > 4, messages
    assert at_rest(worker["url"], run.process)[0] == 0


async def messages_of(run: Run) -> list:
    """What the server says to each hostile request, each judged too."""
    async with httpx.AsyncClient(base_url=run.url, timeout=60, trust_env=False) as client:
        for name, content, headers, expected in run.hostile:
            fault = await run.refused(client, content, headers, expected)
            run.faults += [f"{name}: {fault}"] if fault else []
        answers = [await run.post(client, content, headers) for _, content, headers, _ in run.hostile]
    return [answer.json()["error"]["message"] for answer in answers]


def test_the_mixed_run_sees_wrong_answers_and_wrong_codes(worker):
    run = run_of(worker)
    run.good = [("named wrongly", body, SCENE) for _, body, scene in run.good if scene and scene != SCENE]
    run.hostile = [
        ("refused otherwise", body, headers, other)
        for _, body, headers, expected in run.hostile
        if expected and expected[0] == 400
        for other in ((418, expected[1]), (400, "another_code"))
    ]
    asyncio.run(run.all(30, 8))
    assert len(run.faults) == 30


CALM = [(done, 500.0, 20, 80) for done in (0, 1000, 1250, 1500, 1750, 10_000)]


@pytest.mark.parametrize(
    ("last", "files_after", "found"),
    [
        ((10_000, 500.0 + ALLOWED_GROWTH_MIB + 1, 20, 80), 24, ["memory grew from 500 to 551 MiB"]),
        ((10_000, 500.0, 21, 80), 24, ["threads grew from 20 to 21"]),
        ((10_000, 500.0, 20, 80), 24 + SPARE_FILES + 1, ["open files grew from 24 to 27"]),
        ((10_000, 500.0 + ALLOWED_GROWTH_MIB, 20, 80), 24 + SPARE_FILES, []),
    ],
)
def test_the_mixed_run_sees_what_leaks(last, files_after, found):
    assert leaks([*CALM[:-1], last], 24, files_after) == found
    assert leaks(CALM[:1], 24, 40) == ["open files grew from 24 to 40"], "also before the first thousand"


def test_1500_spoilt_images():
    outcomes = fuzz.fuzz_images(1500)
    assert sum(outcomes.values()) == 1500 and outcomes["decoded"] and outcomes["broken"] and outcomes["format"]


def test_the_image_fuzzer_stops_at_what_is_no_refusal(monkeypatch):
    def broken(data, budget):
        raise ZeroDivisionError if len(data) % 7 == 0 else ImageError("x", reason="x")

    monkeypatch.setattr(fuzz, "decode", broken)
    with pytest.raises(ZeroDivisionError):
        fuzz.fuzz_images(200)


def test_150_odd_requests():
    outcomes = fuzz.fuzz_messages(150)
    assert sum(outcomes.values()) == 150 and outcomes["200"] and outcomes["400"]


def test_overhead_is_judged_by_the_rounds_ratios():
    found = {
        "requests_per_s": {"lingbi": [99.0, 49.0], "bare": [100.0, 50.0]},
        "first_token_ms": {"lingbi": [12.0, 22.0], "bare": [10.0, 20.0]},
    }
    report = judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)
    assert report["within_bounds"] and report["added_first_token_ms"] == 2 and "processor_ratio" not in report
    report = judge(found | {"processor_ms": {"lingbi": [101.0, 202.0], "bare": [100.0, 200.0]}}, 0.02, 5.0)
    assert (report["processor_ratio"], report["processor_ratio_interval"]) == (1.01, [1.01, 1.01])
    found["requests_per_s"]["lingbi"] = [97.0, 48.0]
    assert not judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]
    found["requests_per_s"]["lingbi"], found["first_token_ms"]["lingbi"] = [100.0, 50.0], [16.0, 26.0]
    assert not judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)["within_bounds"]


def test_overhead_has_an_interval_that_says_whether_it_was_told():
    calm = [1.0 + step / 1000 for step in range(-10, 11)]
    low, high = interval(calm)
    assert calm[0] < low <= 1.0 <= high < calm[-1] and high - low < 0.014

    def found(ratios: list, added_ms: float = 0.0) -> dict:
        firsts = [20.0 + added_ms * step for step in range(len(ratios))]
        return judge(
            {
                "requests_per_s": {"lingbi": ratios, "bare": [1.0] * len(ratios)},
                "first_token_ms": {"lingbi": firsts, "bare": [20.0] * len(ratios)},
            },
            MAX_COST,
            MAX_FIRST_TOKEN_MS,
        )

    assert found(calm)["is_told"] and found([ratio - 0.1 for ratio in calm])["is_told"]
    shared = found([1.0 + step / 20 for step in range(-5, 6)])
    assert shared["within_bounds"] and not shared["is_told"], "such rounds cannot tell 2 %"
    assert found(calm)["is_first_token_told"] and found(calm, 9.0)["is_first_token_told"]
    shared = found(calm, 0.48)
    assert shared["within_bounds"] and not shared["is_first_token_told"], "nor these 5 ms"
