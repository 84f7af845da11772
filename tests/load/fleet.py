"""What affinity does in a fleet: the real gateway before many cheap servers, whose answers are made up and whose routing is real.

`python -m tests.load.fleet` does it for 2, 8, 64 and 200 servers; `python -m tests.load.fleet 8` for some. Each line of JSON tells:
how many follow-ups went to the server of the turn before, how full the fullest server was beside the mean while 5 people a server
asked about one picture, and while an attacker chose what hashes to one server; how many conversations moved when one server
left, was away, or came back under another port; whether two gateways choose alike; how long a reload takes; and the
processor time of a request in nginx and in the router, beside a gateway without affinity.
"""

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from lingbi.launch.supervision import wait_until
from lingbi_gateway.router.affinity import SHARE, opening, ranked
from tests.client import CHAT
from tests.conftest import answers
from tests.gateway.conftest import running_gateway

SIZES = (2, 8, 64, 200)
PLENTY = {"KEY_RATE": 100000, "ADDRESS_RATE": 100000, "ADDRESS_CONNECTIONS": 1000}
RATE = 120  # requests/s of all: what this machine's load generator does without being late itself
TURNS, OPENINGS = 6, 3000


class Server(asyncio.Protocol):
    """A server that answers each request with its port, after a while; `running` counts the requests of all by port."""

    running: Counter = Counter()
    seconds = 0.0

    def connection_made(self, transport) -> None:
        self.transport, self.came = transport, b""
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, found, body = self.came.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0) if found else 0
        if found and len(body) >= size:
            self.came = b""
            Server.running[self.port] += 1
            asyncio.get_running_loop().call_later(Server.seconds * random.uniform(0.5, 1.5), self.answer)

    def answer(self) -> None:
        Server.running[self.port] -= 1
        text = b"%d" % self.port
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


class Client:
    """One connection to a gateway."""

    def __init__(self, url: str) -> None:
        self.host, self.port = url.removeprefix("http://").split(":")

    async def __aenter__(self) -> "Client":
        self.left = 900
        self.reader, self.writer = await asyncio.open_connection(self.host, int(self.port))
        return self

    async def __aexit__(self, *_) -> None:
        self.writer.close()

    async def ask(self, messages: list) -> int:
        """The port of the server that answered."""
        self.left -= 1
        if not self.left:  # nginx ends a connection after 1000 requests
            await self.__aexit__()
            await self.__aenter__()
        body = json.dumps({"model": "any", "messages": messages}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: fleet\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer.split(b"\r\n")[0], answer
        size = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(await self.reader.readexactly(size))


def text(said: str) -> dict:
    return {"role": "user", "content": said}


async def conversation(url: str, name: str, pause_s: float) -> list:
    """The ports that answered the turns of a conversation."""
    async with Client(url) as client:
        messages, ports = [], []
        for turn in range(TURNS):
            messages.append(text(f"{name} {turn}"))
            ports.append(await client.ask(messages))
            messages.append({"role": "assistant", "content": "yes"})
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        return ports


async def follow_ups(url: str, servers: int) -> float:
    """The share of follow-ups that the server of the turn before answers: an even load of 4 conversations a server."""
    count = max(32, 4 * servers)
    Server.seconds = pause_s = count / RATE / 2
    starts = (asyncio.sleep(random.uniform(0, 2 * pause_s)) for _ in range(count))

    async def begin(number: int, start) -> list:
        await start
        return await conversation(url, f"{time.time_ns()} {number}", pause_s)

    found = await asyncio.gather(*(begin(number, start) for number, start in enumerate(starts)))
    pairs = [pair for ports in found for pair in zip(ports, ports[1:], strict=False)]
    return sum(before == after for before, after in pairs) / len(pairs)


async def fullest(url: str, questions: list, ports: list, seconds: float = 4.0) -> dict:
    """The fullest server beside the mean, while each of these is asked again and again, as seen 50 times."""
    Server.seconds = len(questions) / RATE
    end, seen = time.monotonic() + seconds + Server.seconds, []

    async def person(question: dict) -> None:
        async with Client(url) as client:
            while time.monotonic() < end:
                await client.ask([question])

    people = [asyncio.ensure_future(person(question)) for question in questions]
    await asyncio.sleep(Server.seconds)  # until all have come
    while time.monotonic() < end - 0.1:
        loads = [Server.running[port] for port in ports]
        seen.append(max(loads) / (sum(loads) / len(loads)))
        await asyncio.sleep(seconds / 50)
    await asyncio.gather(*people)
    return {"median": round(statistics.median(seen), 2), "max": round(max(seen), 2)}


async def places(url: str, count: int = OPENINGS) -> dict:
    """{opening: port} of so many conversations."""
    Server.seconds = 0.0
    async with Client(url) as client:
        return {number: await client.ask([text(f"place {number}")]) for number in range(count)}


def moved(before: dict, after: dict) -> float:
    return sum(before[number] != after[number] for number in before) / len(before)


def attack(ports: list, count: int) -> list:
    """Questions that all have the same server in first place: whoever knows the addresses can choose them."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    tried = (text(f"attack {number}") for number in range(1_000_000))
    first = (one for one in tried if ranked(addresses, opening({"messages": [one]}))[0] == addresses[0])
    return [next(first) for _ in range(count)]


async def cost(gateway, url: str, count: int = 1500) -> dict:
    """Processor time of a request in nginx and in the router, ms, and its median time, ms."""
    main = psutil.Process(gateway.process.pid)
    router = [
        child for watcher in main.children() for child in watcher.children() if "lingbi_gateway" in child.cmdline()
    ]
    nginx = [child for child in main.children() if "nginx" in child.name()]
    Server.seconds, took = 0.0, []

    def used(processes: list) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = used(nginx), used(router)
    async with Client(url) as client:
        for number in range(count):
            start = time.perf_counter()
            await client.ask([text(f"cost {number}")])
            took.append(1000 * (time.perf_counter() - start))
    nginx_s, router_s = (after - earlier for after, earlier in zip((used(nginx), used(router)), before, strict=True))
    shares = {"nginx_ms": 1000 * nginx_s / count, "router_ms": 1000 * router_s / count}
    return {name: round(value, 3) for name, value in (shares | {"median_ms": statistics.median(took)}).items()}


@contextlib.contextmanager
def gateways(folder: Path):
    """Two gateways with affinity and one without, all with the list in this folder."""
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(running_gateway([], SERVERS_DIR=folder, AFFINITY=affinity, **PLENTY))
            for affinity in ("on", "on", "off")
        ]
        assert wait_until(lambda: all(answers(f"{gateway.url}/healthz") for gateway in found), 20)
        yield found


def listed(folder: Path, ports: list, down: int | None = None) -> None:
    lines = [f"server 127.0.0.1:{port}{' down' if port == down else ''};\n" for port in ports]
    (folder / "servers.conf").write_text("".join(lines))


async def reload(gateway, wait_s: float = 1.5) -> float:
    """Seconds that a reload takes; returns when the router has seen it and nginx's processes are new."""
    start = time.monotonic()
    done = await asyncio.to_thread(gateway.command, "reload")
    assert done.returncode == 0, done.stderr
    took = time.monotonic() - start
    await asyncio.sleep(wait_s)
    return took


async def measure(count: int) -> dict:
    """All of it for so many servers."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_server(Server, "127.0.0.1", 0, backlog=1024) for _ in range(count + 1)]
    *ports, other = (server.sockets[0].getsockname()[1] for server in made)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        listed(folder, ports)
        with gateways(folder) as (first, second, plain):
            return {"servers": count} | await _measure(first, second, plain, folder, ports, other)


async def _measure(first, second, plain, folder: Path, ports: list, other: int) -> dict:
    people = [text(f"one picture {number}") | {"content": picture(number)} for number in range(5 * len(ports))]
    report = {
        "follow_ups_found": round(await follow_ups(first.url, len(ports)), 4),
        "follow_ups_found_without": round(await follow_ups(plain.url, len(ports)), 4),
        "fullest_by_mean_one_picture": await fullest(first.url, people, ports),
        "fullest_by_mean_attack": await fullest(first.url, attack(ports, 5 * len(ports)), ports),
        "cost": await cost(first, first.url),
        "cost_without": await cost(plain, plain.url),
    }
    before = await places(first.url)
    report["second_gateway_differs"] = moved(before, await places(second.url))
    listed(folder, ports, down=ports[0])
    report["reload_s"] = round(await reload(first), 2)
    drained = await places(first.url)
    report["moved_when_one_leaves_times_servers"] = round(len(ports) * moved(before, drained), 2)
    report["not_its_share"] = sum(before[number] != drained[number] for number in before if before[number] != ports[0])
    report["differs_while_the_lists_differ_times_servers"] = round(
        len(ports) * moved(drained, await places(second.url)), 2
    )
    listed(folder, [other, *ports[1:]])
    await reload(first)
    report["moved_when_it_comes_back_elsewhere_times_servers"] = round(
        len(ports) * moved(before, await places(first.url)), 2
    )
    return report


def picture(number: int) -> list:
    """A question about the one picture, in everybody's own words."""
    url = "data:image/png;base64," + "A" * 1000
    return [{"type": "text", "text": f"what is {number}?"}, {"type": "image_url", "image_url": {"url": url}}]


def is_good(report: dict) -> bool:
    """Whether it is within the bounds that were set for 8 servers, and for as many as this run has."""
    crowded = max(report["fullest_by_mean_one_picture"]["median"], report["fullest_by_mean_attack"]["median"])
    moves = report["moved_when_one_leaves_times_servers"]
    is_apart = report["not_its_share"] == 0 and report["second_gateway_differs"] <= 0.01
    return report["follow_ups_found"] >= 0.95 and crowded <= SHARE and is_apart and moves <= 2


def main(arguments: list) -> int:
    """Exit status: 0 within the bounds, 1 not."""
    failed = False
    for count in map(int, arguments or SIZES):
        report = asyncio.run(measure(count))
        print(json.dumps(report | {"within_bounds": is_good(report)}), flush=True)
        failed |= not is_good(report)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
