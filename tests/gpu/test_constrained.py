"""Answers in a form on TurboMind: that they are right, what they cost, and what others beside them lose. About three minutes.

Prints a table for each model: run it with -s.
"""

import asyncio
import random
import statistics
import time

import httpx
import pytest

from lingbi.images.messages import data_url, user_message
from lingbi.model.random import make
from lingbi.smoke.form_checks import list_of_objects, response_format
from tests.client import CHAT, body, client_options, http, is_at_rest
from tests.conftest import running_worker
from tests.geometries import PUBLISHED
from tests.load.schemas import FORMS, ask_all, counts
from tests.schemas import SCHEMAS
from training.demo.heldout import JSON_QUESTIONS, heldout_picture

TURBOMIND = {"LINGBI_ENGINE": "turbomind", "LINGBI_CACHE_FRACTION": "0.2", "LINGBI_MAX_BATCH_SIZE": "96"}
MOST_OF_DEMO, MOST_OF_RANDOM, MOST_OF_OTHERS = 1.3, 3.0, 1.05  # times of a free answer
EQUAL_ANSWERS = 0.9
BESIDE, ROUNDS, ROUNDS_BESIDE, FREE_TOKENS, PICTURES = 32, 3, 7, 512, 20
OTHERS_S = 20  # in which one of the others has ended
TIMED = {
    "text": {"guided_regex": r"[^\n]{1,150}"},
    "flat object": {"guided_json": SCHEMAS["flat object"]},
    "scene": {"guided_json": SCHEMAS["scene"]},
    "pattern": {"guided_json": SCHEMAS["pattern"]},
    "Chinese property": {"guided_json": SCHEMAS["Chinese property"]},
}

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with running_worker(tmp_path_factory.mktemp("demo") / "state", **TURBOMIND) as server:
        yield server


@pytest.fixture(scope="module")
def randomly(tmp_path_factory):
    """vl-1_8b at full size with random weights: the worst case, for nearly every token is wrong."""
    if not PUBLISHED.exists():
        pytest.skip("the published tensor lists are not beside this repository")
    folder = tmp_path_factory.mktemp("random") / "vl-1_8b"
    make(PUBLISHED / "internlm-xcomposer2-vl-1_8b", PUBLISHED / "tokenizer.model", folder, seed=0)
    with running_worker(folder.parent / "state", LINGBI_MODEL=str(folder), **TURBOMIND) as server:
        yield server


def question(server: dict, **options) -> dict:
    return body(server, [{"role": "user", "content": "Describe the picture."}], **{"max_tokens": 600} | options)


@pytest.mark.parametrize("server", ["demo", "randomly"])
def test_every_answer_is_valid(server, request):
    server = request.getfixturevalue(server)
    outcome = asyncio.run(ask_all(server, 4 * len(FORMS), BESIDE))
    print(f"\n{outcome.valid} valid, {outcome.tokens} tokens in {outcome.seconds:.1f} s, {counts(server)}")
    assert outcome.faults == []
    assert is_at_rest(server)


def test_greedy_answers_are_those_of_the_cpu_engine(demo, demo_server):
    answers = []
    for server in (demo, demo_server):
        with http(server) as client:
            responses = [client.post(CHAT, json=question(server, **options)) for _, _, options in FORMS]
        answers.append([response.json()["choices"][0]["message"]["content"] for response in responses])
    same = [first == second for first, second in zip(*answers, strict=True)]
    print(
        f"\n{sum(same)} of {len(same)} equal; others: {[name for (_, name, _), is_same in zip(FORMS, same, strict=True) if not is_same]}"
    )
    assert sum(same) / len(same) >= EQUAL_ANSWERS


def seconds_of(client: httpx.Client, asked: dict) -> tuple[float, int, str]:
    """The median seconds of an answer, its tokens and its text."""
    times, answer = [], {}
    for _ in range(ROUNDS + 1):
        began = time.monotonic()
        answer = client.post(CHAT, json=asked).json()
        times.append(time.monotonic() - began)
    text = answer["choices"][0]["message"]["content"]
    return statistics.median(times[1:]), answer["usage"]["completion_tokens"], text


def test_a_bound_answer_of_random_weights_takes_little_longer_than_a_free_one_of_its_length(randomly):
    bound_s = free_s = 0.0
    print(
        f"\n{'form':>20} {'tokens':>7} {'bound ms':>9} {'free ms':>9} {'ratio':>6}   forced, chosen, taken back, unlisted"
    )
    with http(randomly) as client:
        for name, options in TIMED.items():
            before = counts(randomly)
            bound, tokens, _ = seconds_of(client, question(randomly, **options))
            kinds = {kind: (value - before.get(kind, 0)) / (ROUNDS + 1) for kind, value in counts(randomly).items()}
            free, *_ = seconds_of(client, question(randomly, max_tokens=tokens, ignore_eos=True))
            told = ", ".join(f"{kinds.get(kind, 0):.0f}" for kind in ("forced", "chosen", "taken_back", "unlisted"))
            print(f"{name:>20} {tokens:>7} {bound * 1e3:>9.1f} {free * 1e3:>9.1f} {bound / free:>6.2f}   {told}")
            bound_s, free_s = bound_s + bound, free_s + free
    print(f"{'all':>20} {'':>7} {bound_s * 1e3:>9.1f} {free_s * 1e3:>9.1f} {bound_s / free_s:>6.2f}")
    assert bound_s / free_s <= MOST_OF_RANDOM


def test_a_list_of_objects_takes_little_longer_bound_than_free_and_is_the_same(demo):
    form = response_format(list_of_objects("objects", ["colour", "shape", "position"]))
    bound_s = free_s = 0.0
    with http(demo) as client:
        for number in range(PICTURES):
            image, scene = heldout_picture(random.Random(f"bound {number}"), number)
            asked = body(demo, [user_message(JSON_QUESTIONS["en"][0], data_url(image))], max_tokens=300)
            free, *said = seconds_of(client, asked)
            bound, *said_bound = seconds_of(client, asked | {"response_format": form})
            assert said_bound == said, scene
            bound_s, free_s = bound_s + bound, free_s + free
    print(f"\n{PICTURES} lists: bound {bound_s * 1e3:.1f} ms, free {free_s * 1e3:.1f} ms, ratio {bound_s / free_s:.2f}")
    assert bound_s / free_s <= MOST_OF_DEMO


async def seconds_beside(server: dict, others: int, options: dict) -> tuple[float, float]:
    """The mean seconds of BESIDE free answers beside so many others, and those of these, which are asked again until the
    free ones have ended."""
    free = question(server, max_tokens=FREE_TOKENS, ignore_eos=True)
    other = question(server, **options)
    limits = httpx.Limits(max_connections=None)
    others_s = []
    async with httpx.AsyncClient(**client_options(server), limits=limits) as client:

        async def timed(asked: dict) -> float:
            began = time.monotonic()
            (await client.post(CHAT, json=asked)).raise_for_status()
            return time.monotonic() - began

        async def again() -> None:
            while True:
                others_s.append(await timed(other))

        tasks = [asyncio.create_task(again()) for _ in range(others)]
        await asyncio.sleep(0.5)
        times = await asyncio.gather(*(timed(free) for _ in range(BESIDE)))
        await asyncio.wait_for(has_some(others_s), OTHERS_S)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    return statistics.mean(times), statistics.mean(others_s)


async def has_some(items: list) -> None:
    while not items:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("others", [4, BESIDE])
@pytest.mark.parametrize("server", ["demo", "randomly"])
def test_free_answers_lose_little_beside_bound_ones(server, others, request):
    server = request.getfixturevalue(server)
    bound, free = {"guided_json": SCHEMAS["scene"]}, {"max_tokens": FREE_TOKENS, "ignore_eos": True}
    ratios = []
    print(f"\n{BESIDE} free answers beside {others} others, seconds of a free answer (of one of the others):")
    for _ in range(ROUNDS_BESIDE):
        (beside_free, _), (beside_bound, bound_s) = (
            asyncio.run(seconds_beside(server, others, options)) for options in (free, bound)
        )
        ratios.append(beside_bound / beside_free)
        print(f"beside free ones {beside_free:.3f}, beside bound ones {beside_bound:.3f} ({bound_s:.2f})")
    print(f"ratios {[round(ratio, 3) for ratio in ratios]}")
    assert statistics.median(ratios) <= MOST_OF_OTHERS
