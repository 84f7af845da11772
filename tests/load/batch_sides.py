"""The two sides of a card: people who ask and wait, and a batch; see batches.py, which measures them."""

import argparse
import asyncio
import json
import random
import time
from bisect import bisect_left
from dataclasses import dataclass

import httpx

from lingbi.bench.client import Answer, Target, ask, user
from lingbi.bench.questions import Questions, image_url
from lingbi.bench.rounds import percentiles

POLL_S, QUIET_S, LEAD_S, TIMEOUT_S = 0.1, 6.0, 3.0, 600
PEOPLE_SEED = 7 * 10**5
LEAST_LEFT = 0.02  # less is nothing


@dataclass
class Asked:
    """A question of a person, and its answer; began: time.monotonic()."""

    began: float
    answer: Answer

    def token_times(self) -> list[float]:
        times = [self.began + self.answer.first_s]
        for gap in self.answer.gaps_s:
            times.append(times[-1] + gap)
        return times


class People:
    """Persons who ask one question after the other, each time about a new picture.

    pause: the mean seconds from an answer to the next question.
    """

    def __init__(self, target: Target, options: argparse.Namespace, pause: float) -> None:
        self.target, self.pause = target, pause
        seeds = range(PEOPLE_SEED, PEOPLE_SEED + options.people)
        self.askers = [Questions(options.kind, target.model, options.tokens, seed, True) for seed in seeds]

    async def ask(self, settle_s: float, seconds: float) -> tuple[list[Asked], float, float]:
        """What they ask, until so long after they settled, and when that time began and ended."""
        begins = time.monotonic() + settle_s
        ends = begins + seconds
        async with client_of(self.target) as client:
            persons = [self._person(client, asker, number, ends) for number, asker in enumerate(self.askers)]
            found = await asyncio.gather(*persons)
        asked = [one for person in found for one in person]
        if faults := [one.answer.error for one in asked if one.answer.error]:
            raise SystemExit(f"{len(faults)} of {len(asked)} questions were not answered: {faults[0]}")
        return asked, begins, ends

    async def _person(self, client: httpx.AsyncClient, asker: Questions, number: int, ends: float) -> list[Asked]:
        asked, chance = [], random.Random(number)  # the same pauses in each measurement
        turns = await asyncio.to_thread(asker.next_talk)
        await asyncio.sleep(chance.uniform(0, self.pause))
        while time.monotonic() < ends:
            coming = asyncio.create_task(asyncio.to_thread(asker.next_talk))
            asked.append(Asked(time.monotonic(), await ask(client, asker.body([user(turns[0])]))))
            turns = await coming
            await asyncio.sleep(chance.uniform(0.5, 1.5) * self.pause)
        return asked


def figures_of(found: tuple[list[Asked], float, float]) -> dict:
    """What people saw within a time: of the questions that they asked in it, and the tokens that came in it.

    busy: the part of the time in which somebody waited for an answer; answer_tokens_s: of one answer, the median.
    """
    asked, begins, ends = found
    within = [
        one for one in asked if begins <= one.began < ends
    ] or asked  # an answer may take longer than all the time
    if not within:
        raise SystemExit("nobody asked anything; give more --seconds")
    tokens = sum(begins <= at < ends for one in asked for at in one.token_times())
    ttft, gaps = (
        percentiles([one.answer.first_s for one in within]),
        [gap for one in within for gap in one.answer.gaps_s],
    )
    rates = sorted(len(one.answer.gaps_s) / max(1e-9, sum(one.answer.gaps_s)) for one in within)
    return {
        "questions": len(within),
        "ttft_p50_ms": ttft["p50"],
        "ttft_p95_ms": ttft["p95"],
        "gap_p50_ms": percentiles(gaps or [0.0])["p50"],
        "gap_p95_ms": percentiles(gaps or [0.0])["p95"],
        "tokens_s": round(tokens / (ends - begins), 2),
        "answer_tokens_s": round(rates[len(rates) // 2], 2),
        "busy": round(busy_of(asked, begins, ends), 4),
    }


def busy_of(asked: list[Asked], begins: float, ends: float) -> float:
    """The part of a time in which at least one question was under way."""
    busy, until = 0.0, begins
    for one in sorted(asked, key=lambda one: one.began):
        start, end = max(one.began, until), min(one.began + one.answer.total_s, ends)
        busy, until = busy + max(0.0, end - start), max(until, end)
    return busy / (ends - begins)


def left_of(alone_s: float, row: dict, usual: dict, tokens: int) -> dict:
    """The batch's rate as part of what is left: of its rate alone less people's questions, each as dear as a line; and,
    by time, of its rate in the time in which nobody waits when there is no batch. None where nothing is left."""
    left, free = alone_s - row["people"]["tokens_s"] / tokens, 1 - usual["busy"]
    return {
        "kept": round(row["lines_s"] / left, 3) if left > LEAST_LEFT * alone_s else None,
        "kept_by_time": round(row["lines_s"] / (alone_s * free), 3) if free > LEAST_LEFT else None,
    }


class Lines:
    """Lines about pictures. There are so many different ones that none is remembered when it comes again."""

    def __init__(self, target: Target, tokens: int, pictures: int) -> None:
        self.asker = Questions("image", target.model, tokens, 0, True)
        source = random.Random(PEOPLE_SEED - 1)
        self.bodies = [self._body(image_url(source)) for _ in range(pictures)]
        self.next = 0

    def _body(self, url: str) -> str:
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "请描述图中内容"}]
        return json.dumps(self.asker.body([user(content)]) | {"stream": False})

    def file(self, count: int) -> bytes:
        """The input file of a batch."""
        lines = []
        for _ in range(count):
            body = self.bodies[self.next % len(self.bodies)]
            head = f'{{"custom_id": "line-{self.next}", "method": "POST", "url": "/v1/chat/completions", "body": '
            lines.append(f"{head}{body}}}\n")
            self.next += 1
        return "".join(lines).encode()


class Batch:
    """A batch on a server, and how many of its lines had a result when."""

    def __init__(self, client: httpx.AsyncClient, batch_id: str) -> None:
        self.client, self.id = client, batch_id
        self.times: list[float] = []
        self.done: list[int] = []
        self.total = self.failed = 0
        self.status = "validating"

    @classmethod
    async def submitted(cls, client: httpx.AsyncClient, content: bytes) -> "Batch":
        file = await client.post("/v1/files", files={"file": ("lines.jsonl", content)}, data={"purpose": "batch"})
        file.raise_for_status()
        asked = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = await client.post("/v1/batches", json=asked)
        made.raise_for_status()
        return cls(client, made.json()["id"])

    async def look(self) -> None:
        answer = await self.client.get(f"/v1/batches/{self.id}")
        answer.raise_for_status()
        told = answer.json()
        counts, self.status = told["request_counts"], told["status"]
        self.times.append(time.monotonic())
        self.done.append(counts["completed"])
        self.total, self.failed = counts["total"], counts["failed"]

    async def watch(self) -> None:
        """Look again and again, until it has ended."""
        while self.status in ("validating", "in_progress"):
            await self.look()
            await asyncio.sleep(POLL_S)
        if self.status != "cancelling" and (self.status != "completed" or self.failed):
            raise SystemExit(f"the batch is {self.status}, {self.failed} of {self.total} lines failed")

    def when(self, count: int) -> float:
        """When so many lines had a result."""
        return self.times[bisect_left(self.done, count)]

    def at(self, moment: float) -> int:
        """How many lines had a result at a moment."""
        return self.done[max(0, bisect_left(self.times, moment) - 1)]

    async def cancel(self) -> None:
        """End it, and wait until none of its lines runs."""
        await self.client.post(f"/v1/batches/{self.id}/cancel")
        while self.status not in ("completed", "cancelled"):
            await self.look()
            await asyncio.sleep(POLL_S)


async def run_batch(target: Target, content: bytes) -> dict:
    """The rate of a batch alone, from its first line's begin to its last line's result."""
    async with client_of(target) as client:
        batch = await Batch.submitted(client, content)
        while batch.status == "validating":
            await batch.look()
            await asyncio.sleep(POLL_S / 2)
        began = batch.times[-1]
        await batch.watch()
    seconds = batch.when(batch.total) - began
    middle = batch.when(batch.total * 3 // 4) - batch.when(batch.total // 4)
    return {
        "lines": batch.total,
        "seconds": round(seconds, 2),
        "lines_s": round(batch.total / seconds, 4),
        "middle_lines_s": round((batch.total * 3 // 4 - batch.total // 4) / max(middle, 1e-9), 4),
    }


async def beside(target: Target, content: bytes, people: People, options: argparse.Namespace) -> dict:
    """People and a batch at the same time: the batch has the card for itself first."""
    async with client_of(target) as client:
        await asyncio.sleep(QUIET_S)
        batch = await Batch.submitted(client, content)
        watching = asyncio.create_task(batch.watch())
        await asyncio.sleep(LEAD_S)
        found = await people.ask(options.settle, options.seconds)
        if batch.status != "in_progress":
            raise SystemExit("the batch ended before the people did; this script gave it too few lines")
        await batch.cancel()
        await watching
    _, begins, ends = found
    lines = batch.at(ends) - batch.at(begins)
    return {"people": figures_of(found), "lines_s": round(lines / (ends - begins), 3)}


def client_of(target: Target) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {target.key}"}
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=target.url, headers=headers, timeout=TIMEOUT_S, limits=limits, trust_env=False)
