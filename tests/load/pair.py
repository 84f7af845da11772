"""Two workers behind the gateway beside one of them: is a fleet as fast as the sum of its cards?

`python -m tests.load.pair` makes random weights in vl-7b's geometry and needs two GPUs; `--model demo --engine cpu` tries the
same with two workers on one CPU, where nothing can be as fast as twice one. In turns, as medians of the rounds:

- chats about pictures, and single pictures, through the gateway, and at one worker by half as many people;
- the same chats at both workers directly, so that what the gateway costs shows;
- the first token of a follow-up of one conversation, through the gateway and directly;
- the processor time of the gateway's processes for each request;
- how many follow-ups found the server of the turn before, as the gateway counts them.

Prints a table with the goals, and writes what it found as JSON.
"""

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from lingbi.bench.client import Target, ask, user
from lingbi.bench.questions import Questions
from lingbi.bench.report import machine
from lingbi.bench.rounds import Askers
from lingbi.model.catalogue import MODELS
from tests.conftest import free_ports, running_server
from tests.gateway.conftest import running_gateway
from tests.geometries import random_weights
from tests.load.fleet import processes_of, used_s

WORKERS = 2
PLENTY = {"KEY_RATE": 100000, "ADDRESS_RATE": 100000, "ADDRESS_CONNECTIONS": 10000, "KEY_CONNECTIONS": 10000}
LIMITS = {"LINGBI_QUEUE_LIMIT": "1000"}
FOLLOW_UP_TOKENS = 16
CHATS, PICTURES, ALONE = "chat", "image", "follow-up"
# Least share of two workers' sum, most times of the first token directly, least share of follow-ups, most ms and least share.
GOALS = {CHATS: 0.98, PICTURES: 1.97 / WORKERS, ALONE: 1.15, "found": 0.95, "added_ms": 3.0, "through": 0.98}


class Pair:
    """Who is asked: the gateway, a worker, and both without the gateway."""

    def __init__(self, gateway, workers: list[str], key: str, model: str, options: argparse.Namespace) -> None:
        self.options = options
        self.gateway = Target(gateway.url, key, model)
        self.nginx, self.router = processes_of(gateway)
        self.worker, self.both = Target(workers[0], key, model), Target(workers[0], key, model, (workers[1],))

    def placed(self) -> dict[str, int]:
        """Requests that the gateway has placed, by result."""
        text = httpx.get(f"{self.gateway.url}/metrics/gateway", trust_env=False).text
        return {
            result: int(count) for result, count in re.findall(r'placed_requests_total\{result="(\w+)"\} (\d+)', text)
        }


class Series:
    """The rounds of some questions by so many people: {who was asked: figures of each round}."""

    def __init__(self, pair: Pair, askers: Askers, kind: str, people: int) -> None:
        self.pair, self.askers, self.kind, self.people = pair, askers, kind, people
        self.rounds: dict[str, list] = {}
        self.gateway_ms: list[tuple[float, float]] = []  # of nginx and of the router, for a request
        self._seed = 1000 * people + sum(kind.encode())

    def ask(self, who: str, target: Target, people: int) -> None:
        self._seed += 1  # new pictures each time
        options = self.pair.options
        parts = self.pair.nginx, self.pair.router
        before = [used_s(part) for part in parts]
        figures = self.askers.ask_round(target, self.kind, people, options.talks, options.tokens, self._seed, True)
        if who == "gateway":
            spent = (used_s(part) - earlier for part, earlier in zip(parts, before, strict=True))
            self.gateway_ms.append(tuple(round(1000 * one / figures["requests"], 3) for one in spent))
        assert not figures["failed"], figures
        print(f"{self.kind} {people} {who}: {json.dumps(figures)}", file=sys.stderr, flush=True)
        self.rounds.setdefault(who, []).append(figures)

    def measure(self, directly: bool) -> None:
        """All rounds. directly: also at both workers without the gateway."""
        for _ in range(self.pair.options.rounds):
            self.ask("one", self.pair.worker, self.people // WORKERS)
            self.ask("gateway", self.pair.gateway, self.people)
            if directly:
                self.ask("both", self.pair.both, self.people)

    def rate(self, who: str) -> float:
        """Requests/s, the median of the rounds."""
        return statistics.median(one["req_s"] for one in self.rounds[who])

    def shares(self, who: str, times: int) -> list[float]:
        """Of each round: what passed through the gateway beside so many times what these did."""
        pairs = zip(self.rounds["gateway"], self.rounds[who], strict=True)
        return [gateway["req_s"] / other["req_s"] / times for gateway, other in pairs]


async def first_tokens(targets: list[Target], talks: int) -> list[list[float]]:
    """Milliseconds to the first token of each follow-up, for each target; nobody else asks, and the targets take turns."""
    found: list[list[float]] = [[] for _ in targets]
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=target.url, headers={"Authorization": f"Bearer {target.key}"}, timeout=120, trust_env=False
                )
            )
            for target in targets
        ]
        for talk in range(talks + 1):
            for place, (target, client) in enumerate(zip(targets, clients, strict=True)):
                questions = Questions(CHATS, target.model, FOLLOW_UP_TOKENS, 10**7 + talk * len(targets) + place, True)
                messages: list[dict] = []
                for turn, content in enumerate(questions.next_talk()):
                    messages.append(user(content))
                    answer = await ask(client, questions.body(messages))
                    assert not answer.error, answer.error
                    messages.append({"role": "assistant", "content": answer.text})
                    if turn and talk:  # the first talk warms up
                        found[place].append(1000 * answer.first_s)
    return found


def found_share(placed: dict[str, int]) -> float:
    """The share of follow-ups that went to the server of the turn before. placed: requests by result.

    Each conversation here is about a picture of its own, so what is new to the gateway is a first question, and all else is not.
    """
    return placed["kept"] / (sum(placed.values()) - placed["new"])


def measure(pair: Pair) -> dict:
    """Everything; the result that is written."""
    options = pair.options
    begun = pair.placed()
    with Askers() as askers:
        for target in (pair.gateway, pair.both):
            askers.ask_round(target, CHATS, 2 * WORKERS, 1, FOLLOW_UP_TOKENS, 10**6 + len(target.others), True)
        chats = [Series(pair, askers, CHATS, people) for people in options.people]
        for number, series in enumerate(chats):
            series.measure(directly=number == 0)
        pictures = Series(pair, askers, PICTURES, options.people[0])
        pictures.measure(directly=False)
        placed = {result: count - begun[result] for result, count in pair.placed().items()}
    through, directly = asyncio.run(first_tokens([pair.gateway, pair.worker], options.alone))
    every = [*chats, pictures]
    return {
        "machine": machine(),
        "model": pair.gateway.model,
        "options": {"talks": options.talks, "tokens": options.tokens, "rounds": options.rounds},
        "beside_two_times_one": {f"{one.kind} {one.people}": one.shares("one", WORKERS) for one in every},
        "beside_both_directly": chats[0].shares("both", 1),
        "first_token_ms": {"gateway": through, "directly": directly},
        "gateway_processor_ms": {f"{one.kind} {one.people}": one.gateway_ms for one in every},
        "placed": placed,
        "follow_ups_found": found_share(placed),
        "rounds": {f"{one.kind} {one.people}": one.rounds for one in every},
    }


def rows(found: dict) -> Iterator[tuple[str, str, str, bool]]:
    """(what, what was measured, the goal, whether it is reached) of each goal."""
    for name, shares in found["beside_two_times_one"].items():
        rounds, goal = found["rounds"][name], GOALS[name.split()[0]]
        share = statistics.median(shares)
        rates = [statistics.median(one["req_s"] for one in rounds[who]) for who in ("gateway", "one")]
        said = f"{share:.3f} ({min(shares):.3f}-{max(shares):.3f}; {rates[0]:.1f} and {rates[1]:.1f} requests/s)"
        yield f"{name} at once, two workers beside two times one", said, f"at least {goal:.3f}", share >= goal
    through, directly = (statistics.median(found["first_token_ms"][who]) for who in ("gateway", "directly"))
    said = f"{through / directly:.3f} ({through:.1f} and {directly:.1f} ms)"
    yield (
        "first token of a follow-up, gateway beside directly",
        said,
        f"at most {GOALS[ALONE]}",
        (through / directly <= GOALS[ALONE]),
    )
    added = through - directly
    yield (
        "first token, added by the gateway",
        f"{added:+.1f} ms",
        f"at most +{GOALS['added_ms']} ms",
        (added <= GOALS["added_ms"]),
    )
    share = statistics.median(found["beside_both_directly"])
    yield (
        "requests/s, gateway beside both workers directly",
        f"{share:.3f}",
        f"at least {GOALS['through']}",
        (share >= GOALS["through"]),
    )
    share = found["follow_ups_found"]
    yield (
        "follow-ups at the server of the turn before",
        f"{share:.3f}",
        f"at least {GOALS['found']}",
        (share >= GOALS["found"]),
    )


@contextlib.contextmanager
def weights(model: str | None, folder: Path):
    """What to serve: as named, or else random weights in vl-7b's geometry."""
    if model:
        yield model
        return
    (vl_7b,) = (one for one in MODELS if one.name == "vl-7b")
    with random_weights(vl_7b, folder) as made:
        yield str(made)


@contextlib.contextmanager
def running_pair(options: argparse.Namespace):
    """Two workers of one start, and the gateway before them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lingbi-pair-")))
        served = stack.enter_context(weights(options.model, folder / "internlm-xcomposer2-vl-7b"))
        first = free_ports(WORKERS)
        start = ("--model", f"{served}*{WORKERS}", "--engine", options.engine, "--port", first)
        report = stack.enter_context(running_server(folder / "state", *start, **LIMITS))
        print(f"both workers are ready after {report['seconds']} s", file=sys.stderr, flush=True)
        addresses = [f"127.0.0.1:{first + worker}" for worker in range(WORKERS)]
        gateway = stack.enter_context(running_gateway(addresses, **PLENTY))
        workers = [f"http://{address}" for address in addresses]
        yield Pair(gateway, workers, report["key"], report["model"], options)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all goals reached, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="folder or name (default: random weights in vl-7b's geometry, made for the run)"
    )
    parser.add_argument("--engine", default="turbomind", choices=("turbomind", "cpu"))
    parser.add_argument("--people", type=int, nargs="+", default=[64, 128], help="at once (default 64 128)")
    parser.add_argument("--talks", type=int, default=2, help="conversations of each in a round (default 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="length of an answer (default 128)")
    parser.add_argument("--alone", type=int, default=12, help="conversations for the first token alone (default 12)")
    parser.add_argument(
        "--to", type=Path, default=Path("pair.json"), help="file for what was found (default pair.json)"
    )
    options = parser.parse_args(arguments)
    with running_pair(options) as pair:
        begun = time.monotonic()
        found = measure(pair)
        print(f"measured in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    table = list(rows(found))
    options.to.write_text(json.dumps(found | {"goals": table}, indent=1))
    for name, spent in found["gateway_processor_ms"].items():
        nginx_ms, router_ms = (statistics.median(one) for one in zip(*spent, strict=True))
        print(f"  {name}: processor time of a request in nginx {nginx_ms:.2f} ms, in the router {router_ms:.2f} ms")
    for what, measured, goal, is_reached in table:
        print(f"{'  ' if is_reached else '! '}{what:58}{measured:52}{goal}")
    return int(not all(is_reached for *_, is_reached in table))


if __name__ == "__main__":
    sys.exit(main())
