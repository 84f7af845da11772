"""Two servers asked the same in turns, so that what else the machine does weighs on both; and what that comes to."""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable

import httpx
import psutil

RESAMPLINGS, CONFIDENCE = 4000, 0.95


async def ask(client: httpx.AsyncClient, body: dict, count: int, concurrent: int) -> tuple:
    """(requests/s, median seconds to the first text) of so many streamed questions."""
    left, firsts = iter(range(count)), []

    async def work():
        for _ in left:
            start = time.monotonic()
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                assert response.status_code == 200, response.status_code
                first = None
                async for line in response.aiter_lines():
                    if first is None and line.startswith("data: {"):
                        first = _text_time(line, start)
                firsts.append(first)

    start = time.monotonic()
    await asyncio.gather(*(work() for _ in range(concurrent)))
    return count / (time.monotonic() - start), statistics.median(firsts)


def _text_time(line: str, start: float) -> float | None:
    is_text = json.loads(line[6:])["choices"][0]["delta"].get("content")
    return time.monotonic() - start if is_text else None


async def compare(urls: dict, key: str, body: dict, options, processes: dict | None = None) -> dict:
    """Per-side lists over the rounds; the side that begins changes from round to round.

    urls: {side: URL} of two; options: rounds, count (requests of a side in a round), concurrent; processes: {side: process
    id} of servers that are one process each, whose processor time is taken too.
    """
    common = {"headers": {"Authorization": f"Bearer {key}"}, "timeout": 120, "trust_env": False}
    clients = {side: httpx.AsyncClient(base_url=url, **common) for side, url in urls.items()}
    rates, firsts, used = ({side: [] for side in urls} for _ in range(3))
    spent = {side: _clock_of(process) for side, process in (processes or {}).items()}
    alone_count = max(5, options.count // 4)
    for number in range(options.rounds + 1):
        for side in list(urls) if number % 2 else list(urls)[::-1]:
            before_s = spent[side]() if spent else 0.0
            together = await ask(clients[side], body, options.count, options.concurrent)
            alone = await ask(clients[side], body, alone_count, 1)
            if number:  # the first round warms up
                rates[side].append(together[0])
                firsts[side].append(alone[1] * 1000)
            if number and spent:
                used[side].append((spent[side]() - before_s) * 1000 / (options.count + alone_count))
    for client in clients.values():
        await client.aclose()
    return {"requests_per_s": rates, "first_token_ms": firsts} | ({"processor_ms": used} if spent else {})


def _clock_of(process: int) -> Callable[[], float]:
    """Tells the processor's seconds that a process has taken so far."""
    known = psutil.Process(process)
    return lambda: sum(known.cpu_times()[:2])


def judge(found: dict, max_cost: float, max_first_token_ms: float) -> dict:
    """Medians of both sides, and of the rounds' ratios and differences, of the first side to the second.

    max_cost: part of the requests/s that the first may be below; max_first_token_ms: how much later its text may come.
    is_told, is_first_token_told: whether the whole interval of that median lies on one side of its bound, so that the run
    tells. processor_ratio: of the processor's time for a request; it varies much less than requests/s, which it bounds where
    the engine has all processors to itself.
    """
    rates, firsts = found["requests_per_s"], found["first_token_ms"]
    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    added = [ours - theirs for ours, theirs in zip(*firsts.values(), strict=True)]
    report = {f"{side}_requests_per_s": round(statistics.median(values), 2) for side, values in rates.items()}
    report |= {f"{side}_first_token_ms": round(statistics.median(values), 2) for side, values in firsts.items()}
    low, high = interval(ratios)
    report |= {"ratio": round(statistics.median(ratios), 4), "ratio_interval": [round(low, 4), round(high, 4)]}
    report |= {"is_told": low >= 1 - max_cost or high < 1 - max_cost, "ratios": [round(ratio, 3) for ratio in ratios]}
    report["added_first_token_ms"] = round(statistics.median(added), 2)
    soonest, latest = interval(added)
    report["added_first_token_ms_interval"] = [round(soonest, 2), round(latest, 2)]
    report["is_first_token_told"] = latest <= max_first_token_ms or soonest > max_first_token_ms
    is_good = report["ratio"] >= 1 - max_cost and report["added_first_token_ms"] <= max_first_token_ms
    return (
        {"within_bounds": is_good} | report | (_of_processor(found["processor_ms"]) if "processor_ms" in found else {})
    )


def _of_processor(used: dict) -> dict:
    """Medians of both sides, and of the rounds' ratios of the first to the second."""
    ratios = [ours / theirs for ours, theirs in zip(*used.values(), strict=True)]
    report = {f"{side}_processor_ms": round(statistics.median(values), 2) for side, values in used.items()}
    report["processor_ratio"] = round(statistics.median(ratios), 4)
    return report | {"processor_ratio_interval": [round(end, 4) for end in interval(ratios)]}


def interval(values: list) -> tuple:
    """(low, high) of the median of values from paired rounds, by bootstrap, at 95 % confidence."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLINGS))
    left_out = int(RESAMPLINGS * (1 - CONFIDENCE) / 2)
    return medians[left_out], medians[-1 - left_out]
