"""Many clients on models that share one place: `python -m tests.load.swaps`, about ten minutes.

Three copies of the demo model under three names, of which one is loaded at a time. Clients that change the model with every
question; a mix of streams and whole answers, of pictures and texts, while processes are killed; and twenty swaps in a row,
after which no process and no memory may be left. Each answer is judged by its content and by the name that it bears.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from lingbi.images.scenes import find_fault
from tests.client import CHAT, SCENES, client_options, question
from tests.conftest import DEMO
from tests.on_demand import Host, renamed_demo, running_on_demand

SWAPS, LEFT_MIB = 20, 64


@dataclass
class Outcome:
    """What became of the questions."""

    asked: int = 0
    faults: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0


async def ask_one(client: httpx.AsyncClient, server: dict, number: int, is_streamed: bool, outcome: Outcome) -> None:
    """Ask a server about a scene, and note what is wrong with the answer."""
    scene, began = SCENES[number % len(SCENES)], time.monotonic()
    url, headers = server["url"] + CHAT, {"Authorization": f"Bearer {server['key']}"}
    body = question(server, scene, stream=is_streamed)
    outcome.asked += 1
    try:
        response = await client.post(url, json=body, headers=headers)
        text, model = read(response, is_streamed)
    except (httpx.HTTPError, ValueError, LookupError) as error:
        outcome.faults.append(f"{server['model']}: {error!r}")
        return
    outcome.waits.append(time.monotonic() - began)
    wrong = find_fault("things", scene, text)
    if model != server["model"]:
        outcome.faults.append(f"asked {server['model']}, and {model} answered")
    elif wrong:
        outcome.faults.append(f"{model}: {wrong}")


def read(response: httpx.Response, is_streamed: bool) -> tuple[str, str]:
    """(text, model) of an answer. Raises for one that is not whole."""
    response.raise_for_status()
    if not is_streamed:
        return response.json()["choices"][0]["message"]["content"], response.json()["model"]
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    if lines[-1] != "[DONE]":
        raise ValueError(f"the stream ended early: {response.text[-300:]}")
    chunks = [json.loads(line) for line in lines[:-1]]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    return "".join(deltas), chunks[0]["model"]


def patient_client(server: dict) -> httpx.AsyncClient:
    options = client_options(server) | {"timeout": 600, "limits": httpx.Limits(max_connections=None)}
    return httpx.AsyncClient(**options)


async def ask_alternating(servers: list[dict], clients: int, questions: int) -> Outcome:
    """Each client asks one question after the other, each of another model than the one before."""
    outcome, began = Outcome(), time.monotonic()
    async with patient_client(servers[0]) as client:

        async def one(number: int) -> None:
            for turn in range(questions):
                server = servers[(number + turn) % len(servers)]
                await ask_one(client, server, number + turn, bool(number % 2), outcome)

        await asyncio.gather(*map(one, range(clients)))
    outcome.seconds = time.monotonic() - began
    return outcome


async def ask_mixed(servers: list[dict], count: int, at_once: int, seed: int = 0) -> Outcome:
    """So many questions to models at random, at_once at a time."""
    outcome, began, chosen = Outcome(), time.monotonic(), random.Random(seed)
    room = asyncio.Semaphore(at_once)
    async with patient_client(servers[0]) as client:

        async def one(number: int, server: dict, is_streamed: bool) -> None:
            async with room:
                await ask_one(client, server, number, is_streamed, outcome)

        await asyncio.gather(*(one(number, chosen.choice(servers), chosen.random() < 0.5) for number in range(count)))
    outcome.seconds = time.monotonic() - began
    return outcome


async def swap_again_and_again(host: Host, swaps: int) -> tuple[Outcome, list[int]]:
    """One question to each model in turn, so that each is a swap; also the MiB of all processes after each."""
    outcome, sizes = Outcome(), []
    async with patient_client(host.servers[0]) as client:
        for number in range(swaps):
            await ask_one(client, host.servers[number % len(host.servers)], number, False, outcome)
            await asyncio.to_thread(at_rest, host)
            sizes.append(private_mib(host))
    return outcome, sizes


def at_rest(host: Host) -> None:
    """Wait until every worker has one process again."""
    deadline = time.monotonic() + 30
    while any(len(host.lives(number)) != 1 for number in range(len(host.urls))) and time.monotonic() < deadline:
        time.sleep(0.1)


def private_mib(host: Host) -> int:
    """MiB of memory that the workers' processes do not share."""
    lives = [life for number in range(len(host.urls)) for life in host.lives(number)]
    processes: list[psutil.Process] = [*host.processes, *lives]
    return sum(process.memory_full_info().uss for process in processes) >> 20


def report(name: str, outcome: Outcome, loads: int) -> int:
    """Print a line, and the faults; the number of these."""
    longest = max(outcome.waits, default=0)
    print(
        f"{name}: {outcome.asked} questions, {len(outcome.faults)} faults, {loads} loads, {outcome.seconds:.0f} s, "
        f"longest answer after {longest:.0f} s",
        flush=True,
    )
    for fault in outcome.faults[:5]:
        print(f"  {fault}")
    return len(outcome.faults)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 for a fault, or for memory that is left."""
    parser = argparse.ArgumentParser(prog="tests.load.swaps", description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--questions", type=int, default=5, help="of each client")
    parser.add_argument("--mixed", type=int, default=500)
    parser.add_argument("--swaps", type=int, default=SWAPS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        models = [DEMO, renamed_demo(Path(folder) / "shapes-a"), renamed_demo(Path(folder) / "shapes-b")]
        with running_on_demand(Path(folder) / "state", models, LINGBI_STAY_S="5") as host:
            faults = 0
            before = host.wakes()
            outcome = asyncio.run(ask_alternating(host.servers, options.clients, options.questions))
            loads = host.wakes() - before
            faults += report(f"{options.clients} clients that alternate", outcome, loads)
            faults += loads > len(models) * options.questions + 1
            before = host.wakes()
            outcome = asyncio.run(ask_mixed(host.servers, options.mixed, 64))
            faults += report("mixed questions", outcome, host.wakes() - before)
            before = host.wakes()
            outcome, sizes = asyncio.run(swap_again_and_again(host, options.swaps))
            faults += report("swaps in a row", outcome, host.wakes() - before)
            left = sizes[-1] - sizes[len(models) - 1]
            print(
                f"memory of the processes after each swap, MiB: {sizes}; {left} more than after the first of each model"
            )
            faults += left > LEFT_MIB
            for number in range(len(models)):
                print(f"worker {number}: {(host.state_dir / f'run/worker-{number}.wakes').read_text()}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
