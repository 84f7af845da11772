"""Two servers asked the same in turns, so that what else the machine does weighs on both; and what that comes to."""

import asyncio
import json
import random
import statistics
import time

import httpx

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


async def compare(urls: dict, key: str, body: dict, options) -> dict:
    """Per-side lists over the rounds; the side that begins changes from round to round.

    urls: {side: URL} of two; options: rounds, count (requests of a side in a round), concurrent.
    """
    common = {"headers": {"Authorization": f"Bearer {key}"}, "timeout": 120, "trust_env": False}
    clients = {side: httpx.AsyncClient(base_url=url, **common) for side, url in urls.items()}
    rates, firsts = {side: [] for side in urls}, {side: [] for side in urls}
    for number in range(options.rounds + 1):
        for side in list(urls) if number % 2 else list(urls)[::-1]:
            together = await ask(clients[side], body, options.count, options.concurrent)
            alone = await ask(clients[side], body, max(5, options.count // 4), 1)
            if number:  # the first round warms up
                rates[side].append(together[0])
                firsts[side].append(alone[1] * 1000)
    for client in clients.values():
        await client.aclose()
    return {"requests_per_s": rates, "first_token_ms": firsts}


def judge(found: dict, max_cost: float, max_first_token_ms: float) -> dict:
    """Medians of both sides, and of the rounds' ratios and differences, of the first side to the second.

    max_cost: part of the requests/s that the first may be below; max_first_token_ms: how much later its text may come.
    is_told: whether the whole interval of the ratio's median lies on one side of that bound, so that the run tells.
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
    report["added_first_token_ms_interval"] = [round(end, 2) for end in interval(added)]
    is_good = report["ratio"] >= 1 - max_cost and report["added_first_token_ms"] <= max_first_token_ms
    return {"within_bounds": is_good} | report


def interval(values: list) -> tuple:
    """(low, high) of the median of values from paired rounds, by bootstrap, at 95 % confidence."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLINGS))
    left_out = int(RESAMPLINGS * (1 - CONFIDENCE) / 2)
    return medians[left_out], medians[-1 - left_out]
