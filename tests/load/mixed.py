"""Mixed requests at a running server, a third of them hostile: `python -m tests.load.mixed URL KEY_FILE`.

Every good request must be answered rightly by content and every bad one refused with its code. Of the
server's process memory, threads and file descriptors are taken before, during and after.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil

from lingbi.images.scenes import find_fault
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES
from tests.server.images.bad_images import refused, url_of, zip_bomb
from tests.server.images.image_hosts import (
    LYING_HUGE,
    LYING_LONGER,
    LYING_NEGATIVE,
    drip,
    endless,
    host,
    redirect,
    silent,
)

SETTLED_AFTER = 1000
# The demo model on an H200 gives about 2000 tokens a second.
LONG_TOKENS, LEAVE_WITHIN_S = 3500, 0.5
ALLOWED_GROWTH_MIB = 50
SPARE_FILES = 2
MODEL = "internlm-xcomposer2-demo"
# Not in the mix: a picture question over a name that nobody has waits for the resolver, not for us.
LEFT_OUT = {"no such name"}


def body(messages, **options) -> dict:
    return {"model": MODEL, "messages": messages, "max_tokens": 32, "temperature": 0} | options


# What hosts of pictures do to who fetches from them; a server that may not reach this machine refuses them all alike.
HOSTS = {
    "redirect to loopback": redirect("http://[::1]/"),
    "redirect to metadata": redirect("http://169.254.169.254/latest/meta-data/"),
    "redirect to a private address": redirect("http://10.0.0.1/a.png"),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect without end": redirect("/again"),
    "silent host": silent,
    "slow host": drip,
    "endless host": endless,
    "host that promises more": LYING_LONGER,
    "host that promises too much": LYING_HUGE,
    "host that promises less than nothing": LYING_NEGATIVE,
    "host that speaks no http": b"SSH-2.0-OpenSSH_9.0\r\n",
}
CODES = {400: "invalid_value", 401: "invalid_api_key", 404: "model_not_found"}


@contextlib.contextmanager
def hosts():
    """The hosts, while the block runs; yields {name: URL}."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(host(answer)) for name, answer in HOSTS.items()}


def hostile(urls: dict) -> list:
    """(name, request body as JSON bytes, headers, expected (status, code); None: the client leaves).

    urls: of the pictures that cannot be used, by name.
    """
    good = data_url(SCENES[0])
    kinds = [
        (name, body([turn(QUESTION, url)], stream=len(name) % 2 == 0), {}, (400, "invalid_image"))
        for name, url in urls.items()
    ]
    kinds += [
        ("too long", body([turn("hello " * 5000)]), {}, (400, "context_length_exceeded")),
        ("a megabyte of text", body([turn("x" * 1_000_000, good)]), {}, (400, "context_length_exceeded")),
        ("100 pictures", body([turn(QUESTION, *[good] * 100)]), {}, (400, "invalid_image")),
        ("no messages", body([]), {}, 400),
        ("null message", body([None]), {}, 400),
        ("temperature", body([turn("x")], temperature=9), {}, 400),
        ("another model", body([turn("x")], model="gpt-4"), {}, 404),
        ("no key", body([turn("x")]), {"Authorization": ""}, 401),
        ("wrong key", body([turn("x")]), {"Authorization": "Bearer wrong"}, 401),
        ("long key", body([turn("x")]), {"Authorization": "Bearer " + "k" * 10_000}, 401),
        ("leaves", body([turn(QUESTION, good)], max_tokens=LONG_TOKENS, ignore_eos=True, stream=True), {}, None),
        ("leaves early", body([turn(QUESTION, good)], max_tokens=LONG_TOKENS, ignore_eos=True), {}, None),
    ]
    encoded = [(name, json.dumps(item).encode(), headers, expected) for name, item, headers, expected in kinds]
    encoded += [("deep", b'{"messages":' + b"[" * 10_000, {}, 400), ("no json", b"{" * 100, {}, 400)]
    return [
        (name, content, headers, (expected, CODES[expected]) if isinstance(expected, int) else expected)
        for name, content, headers, expected in encoded
    ]


def good() -> list:
    """(name, body, scene): one-object pictures, streamed and whole, and what looks odd and is fine."""
    kinds = []
    for scene, stream in itertools.product(SCENES, (False, True)):
        item = body([turn(QUESTION, data_url(scene, "JPEG" if stream else "PNG"))], stream=stream)
        kinds.append((f"{scene.things[0].colour} {scene.things[0].shape}", json.dumps(item).encode(), scene))
    bomb = json.dumps(body([turn(QUESTION, url_of(zip_bomb()))])).encode()
    return [*kinds, ("zip bomb of 100 x 100", bomb, None)]


def text_of(response: httpx.Response) -> str:
    """The answer's text, of a whole or a streamed one."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        return response.json()["choices"][0]["message"]["content"]
    events = [line[6:] for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]", events[-1]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1])


class Run:
    """One run: what was sent, what was wrong with it, and how the server was meanwhile."""

    def __init__(self, url: str, key: str, process: psutil.Process | None, seed: int, host_urls: dict | None = None):
        """host_urls: of `hosts`."""
        self.url, self.process, self.rng = url, process, random.Random(seed)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        spoilt = {name: url for name, (url, _) in refused().items() if name not in LEFT_OUT}
        self.good, self.hostile = good(), hostile(spoilt | (host_urls or {}))
        self.faults, self.statuses, self.done, self.left, self.samples = [], Counter(), 0, 0, []

    async def one(self, client: httpx.AsyncClient) -> None:
        if self.rng.random() < 1 / 3:
            name, content, headers, expected = self.rng.choice(self.hostile)
            fault = await (
                self.refused(client, content, headers, expected) if expected else self.leave(client, content)
            )
        else:
            name, content, scene = self.rng.choice(self.good)
            fault = await self.answered(client, content, scene)
        self.done += 1
        if fault:
            self.faults.append(f"{name}: {fault}")
        if self.done % 250 == 0:
            self.sample()

    async def post(self, client: httpx.AsyncClient, content: bytes, headers: dict) -> httpx.Response:
        while True:
            response = await client.post(CHAT, content=content, headers=self.headers | headers)
            self.statuses[response.status_code] += 1
            if response.status_code != 429:
                return response
            await asyncio.sleep(int(response.headers["retry-after"]))

    async def answered(self, client, content: bytes, scene) -> str | None:
        response = await self.post(client, content, {})
        if response.status_code != 200:
            return f"{response.status_code} {response.text[:200]}"
        text = text_of(response)
        return find_fault("things", scene, text) if scene else None

    async def refused(self, client, content: bytes, headers: dict, expected: tuple) -> str | None:
        response = await self.post(client, content, headers)
        error = response.json().get("error", {})
        if (response.status_code, error.get("code")) != expected or not error["message"]:
            return f"{response.status_code} instead of {expected}: {response.text[:200]}"
        return None

    async def leave(self, client, content: bytes) -> str | None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.listen(client, content), self.rng.random() * LEAVE_WITHIN_S)
            return f"an answer of {LONG_TOKENS} tokens ended within {LEAVE_WITHIN_S} s"
        self.left += 1
        return None

    async def listen(self, client, content: bytes) -> None:
        while True:
            async with client.stream("POST", CHAT, content=content, headers=self.headers) as response:
                if response.status_code == 200:
                    async for _ in response.aiter_lines():
                        continue
                    return
                await asyncio.sleep(1)

    def sample(self) -> None:
        if self.process:
            memory = self.process.memory_info().rss / (1 << 20)
            seen = self.done, memory, self.process.num_threads(), self.process.num_fds()
            self.samples.append(seen)
            print(f"{seen[0]} done, {seen[1]:.0f} MiB, {seen[2]} threads, {seen[3]} files", file=sys.stderr, flush=True)

    async def all(self, count: int, concurrent: int) -> None:
        limits = httpx.Limits(max_connections=concurrent, max_keepalive_connections=concurrent)
        left = iter(range(count))
        async with httpx.AsyncClient(base_url=self.url, timeout=300, limits=limits, trust_env=False) as client:

            async def work():
                for _ in left:
                    await self.one(client)

            await asyncio.gather(*(work() for _ in range(concurrent)))


def leaks(samples: list, files_before: int, files_after: int) -> list:
    """What grew: memory in MiB and threads after the first thousand requests, open files from before to after.

    samples: (requests done, MiB, threads, files), in order; the last is taken at rest.
    """
    grown = (
        [f"open files grew from {files_before} to {files_after}"] if files_after > files_before + SPARE_FILES else []
    )
    settled = [sample for sample in samples if sample[0] >= SETTLED_AFTER]
    if not settled:
        return grown
    first, last = settled[0], settled[-1]
    if last[1] - first[1] > ALLOWED_GROWTH_MIB:
        grown.append(f"memory grew from {first[1]:.0f} to {last[1]:.0f} MiB")
    if last[2] > max(sample[2] for sample in settled[:4]):
        grown.append(f"threads grew from {first[2]} to {last[2]}")
    return grown


def at_rest(url: str, process) -> tuple:
    """(sessions and requests left, open files) a while after the last request."""
    deadline = time.monotonic() + 10
    while True:
        text = httpx.get(f"{url}/metrics", trust_env=False).text
        names = ("lingbi_sessions{", "lingbi_requests_inside{")
        left = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(names))
        files = process.num_fds() if process else 0
        if not left or time.monotonic() > deadline:
            return left, files
        time.sleep(0.2)


def main(arguments=None) -> int:
    """Exit status: 0 all as it must be, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("key_file", type=Path)
    parser.add_argument("--pid", type=int, help="the worker's process, to watch its memory")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--concurrent", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    process = psutil.Process(options.pid) if options.pid else None
    key = options.key_file.read_text().split()[0]
    _, files = at_rest(options.url, process)
    start = time.monotonic()
    with hosts() as host_urls:
        run = Run(options.url, key, process, options.seed, host_urls)
        asyncio.run(run.all(options.count, options.concurrent))
    seconds = time.monotonic() - start
    time.sleep(6)  # uvicorn closes idle connections after five seconds
    run.sample()
    left, files_after = at_rest(options.url, process)
    faults = run.faults + leaks(run.samples, files, files_after)
    faults += [f"{left} requests or sessions are left"] if left else []
    report = {
        "requests": run.done,
        "seconds": round(seconds, 1),
        "per_second": round(run.done / seconds, 1),
        "left": run.left,
        "statuses": dict(sorted(run.statuses.items())),
        "faults": len(faults),
        "samples": run.samples[:4] + run.samples[-1:],
        "files": [files, files_after],
    }
    print("\n".join(faults[:50]), file=sys.stderr)
    print(json.dumps(report))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
