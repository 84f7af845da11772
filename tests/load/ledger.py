"""Whether what clients saw is what was counted, though the worker is killed and the database cut off under load.

`python -m tests.load.ledger` starts a real PostgreSQL and a worker with the demo model, has clients ask whole answers and
streams, each request with an API key of its own, kills the worker 20 times at random moments, and stops the database for a
minute. In the end every request's row must be what its client was told, to the token; of a stream that a kill broke off, at
most the last second may be missing. Prints what happened; its exit status is 1 where anything is wrong.
"""

import argparse
import contextlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.entries import Counts
from lingbi.accounts.key_file import Key, digest
from lingbi.accounts.ledger.journal import LOST, in_folder
from lingbi.accounts.tables import usage_hours
from lingbi.launch.supervision import wait_until
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES, metric
from tests.conftest import ROOT, answers, clean_environment, free_port
from tests.postgres import Fresh, Server, installed
from tests.server.accounts.ledger.parts import sums

READY_S = 300
UNTOLD_S = (
    1.6  # what a client saw longer than so ago is on the disk: a second, and what a busy machine takes to write it
)
MODEL = "internlm-xcomposer2-demo"
GOOD, REFUSED = 200, 400


@dataclass
class Asked:
    """One request: its key, what was asked, and what its client saw. broken_at: when the connection broke, if it did."""

    key: str
    kind: str
    status: int | None = None
    usage: dict | None = None
    chunks: list[float] = field(default_factory=list)  # when each came that has text
    broken_at: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.broken_at is None and self.status is not None


class Load:
    """Clients that ask without a pause, each in a thread."""

    def __init__(self, url: str, keys: int, clients: int) -> None:
        self.url, self.asked, self.names = url, [], itertools.count()
        self.secrets = [f"secret-{number}" for number in range(keys)]
        self._stop = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]

    def key_lines(self) -> str:
        keys = [Key(f"k{number}", digest(secret.encode())) for number, secret in enumerate(self.secrets)]
        return "".join(f"{key.line()}\n" for key in keys)

    @contextlib.contextmanager
    def running(self):
        for thread in self.threads:
            thread.start()
        yield
        self._stop.set()
        for thread in self.threads:
            thread.join(READY_S)

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        limits = httpx.Limits(max_keepalive_connections=0)  # so that no request meets a connection that died before
        with httpx.Client(base_url=self.url, timeout=READY_S, limits=limits, trust_env=False) as client:
            number = next(self.names)
            while not self._stop.is_set() and number < len(self.secrets):
                asked = Asked(f"k{number}", rng.choice(("whole", "stream", "stream", "image", "refused")))
                try:
                    self._ask(client, asked, self.secrets[number], rng)
                except httpx.ConnectError:  # nobody heard it
                    time.sleep(0.3)
                    continue
                except httpx.TransportError:
                    asked.broken_at = time.monotonic()
                self.asked.append(asked)
                number = next(self.names)
                if asked.status == 503:
                    time.sleep(0.3)

    def _ask(self, client: httpx.Client, asked: Asked, secret: str, rng: random.Random) -> None:
        body = {"model": MODEL, "messages": [turn("hello")], "max_tokens": rng.randrange(1, 60), "ignore_eos": True}
        if asked.kind == "image":
            body["messages"] = [turn(QUESTION, data_url(rng.choice(SCENES)))]
        if asked.kind == "refused":
            body["temperature"] = 9
        if asked.kind == "stream":
            body |= {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": rng.randrange(1, 900)}
        with client.stream("POST", CHAT, json=body, headers={"Authorization": f"Bearer {secret}"}) as answer:
            asked.status = answer.status_code
            if asked.kind == "stream" and asked.status == GOOD:
                self._follow(answer, asked)
            else:
                asked.usage = json.loads(answer.read()).get("usage")

    @staticmethod
    def _follow(answer: httpx.Response, asked: Asked) -> None:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                asked.usage = event.get("usage") or asked.usage
                if event["choices"] and event["choices"][0]["delta"].get("content"):
                    asked.chunks.append(time.monotonic())
        raise httpx.ReadError("the stream ended before its end")


class Worker:
    """A worker's process, which is killed and started again in the same place."""

    def __init__(self, state: Path, key_lines: str, **settings: str) -> None:
        self.state, self.port, self.killed = state, free_port(), []
        state.mkdir(parents=True)
        (state / "keys").write_text(key_lines)
        self.url = f"http://127.0.0.1:{self.port}"
        given = {"LINGBI_MODEL": "demo", "LINGBI_ENGINE": "cpu", "LINGBI_PORT": str(self.port)} | settings
        self.environment = clean_environment(state) | given
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with (self.state / "worker.log").open("a") as log:
            command = [sys.executable, "-m", "lingbi.worker"]
            self.process = subprocess.Popen(command, env=self.environment, stderr=log, cwd=ROOT)
        ready = f"{self.url}/ready"
        assert wait_until(lambda: self.process.poll() is not None or answers(ready), READY_S), self.log()
        assert self.process.poll() is None, self.log()

    def kill(self) -> None:
        self.killed.append(time.monotonic())
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """A drain, as supervisor ends it; what waits, and what the killed ones left, is counted before."""
        assert wait_until(self._is_counted, 90), self.log()
        self.process.terminate()
        assert self.process.wait(90) == 0, self.log()

    def _is_counted(self) -> bool:
        is_alone = len(in_folder(self.state / "accounts/journals")) == 1  # its own
        return is_alone and metric({"url": self.url}, "lingbi_ledger_waiting_entries") == 0

    def log(self) -> str:
        return (self.state / "worker.log").read_text()[-4000:]


def faults(asked: list[Asked], rows: dict, killed: list[float]) -> list[str]:
    """What is wrong with the rows, {(key, status): Counts}, of the requests that were asked."""
    found, of_keys = [], {}
    for (key, status), counts in rows.items():
        of_keys.setdefault(key, {})[status] = counts
    for one in asked:
        has = of_keys.pop(one.key, {})
        fault = _fault_of_whole(one, has) if one.is_whole else _fault_of_broken(one, has, killed)
        if fault:
            found.append(f"{one.key} ({one.kind}, {one.status}, {one.usage}): {fault}; counted: {has}")
    return found + [f"{key}: nobody asked with it, and {has} was counted" for key, has in of_keys.items()]


def _fault_of_whole(one: Asked, has: dict[int, Counts]) -> str | None:
    """Of a request whose end its client has: one row, with the counts that it was told."""
    if set(has) != {one.status} or has[one.status].requests != 1:
        return f"one row with the status {one.status} is right"
    counts, usage = has[one.status], one.usage or {}
    told = (usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    if (counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens) != (*told, cached):
        return "other counts than its client was told"
    if counts.images != (one.kind == "image" and one.status == GOOD) or bool(counts.gpu_ms) != (one.status == GOOD):
        return "images or time in the engine are wrong"
    return None


def _fault_of_broken(one: Asked, has: dict[int, Counts], killed: list[float]) -> str | None:
    """Of one that a kill broke off: at most one request, and what its client had a while before."""
    if sum(counts.requests for counts in has.values()) > 1 or not set(has) <= {GOOD, REFUSED, LOST, 499}:
        return "at most one request is right"
    kill = max((at for at in killed if at <= one.broken_at), default=one.broken_at)
    seen = sum(at < kill - UNTOLD_S for at in one.chunks)
    made = sum(counts.completion_tokens for counts in has.values())
    if made < seen:
        return f"its client had {seen} pieces of the answer {UNTOLD_S} s before the kill"
    if has.get(LOST) and has[LOST].completion_tokens and one.kind != "stream":
        return "its client had nothing of it"
    return None


def summary(asked: list[Asked], rows: dict, found: list[str]) -> dict:
    whole = [one for one in asked if one.is_whole]
    told = Counter()
    for one in whole:
        told.update({name: value for name, value in (one.usage or {}).items() if isinstance(value, int)})
    counted = Counts()
    whole_keys = {one.key for one in whole}
    for (key, _), counts in rows.items():
        counted = counted.plus(counts) if key in whole_keys else counted
    return {
        "whole": len(whole),
        "statuses": dict(Counter(str(one.status) for one in whole)),
        "broken": len(asked) - len(whole),
        "lost": sum(status == LOST for _, status in rows),
        "told": [told["prompt_tokens"], told["completion_tokens"]],
        "counted": [counted.prompt_tokens, counted.completion_tokens],
        "faults": len(found),
    }


def trouble(
    worker: Worker, database: Server | None, kills: int, cut_s: float, apart_s: float, rng: random.Random
) -> int:
    """Kill and cut under load; returns the kills. The database is away in the middle, and one kill comes meanwhile."""
    for number in range(kills):
        time.sleep(rng.uniform(0.3, apart_s))
        is_cut = database is not None and number == kills // 2
        if is_cut:
            database.stop()
            time.sleep(cut_s / 2)
        worker.kill()
        worker.start()
        if is_cut:
            time.sleep(cut_s / 2)
            database.start()
    time.sleep(apart_s)
    return kills


def run(
    folder: Path, url: str, server: Server | None, options: argparse.Namespace, **settings: str
) -> tuple[dict, list[str]]:
    """One run; returns its summary and what is wrong. url: as Database takes it, of an empty database."""
    load = Load("", options.keys, options.clients)
    worker = Worker(folder / "state", load.key_lines(), **settings)
    load.url = worker.url
    try:
        worker.start()
        with load.running():
            trouble(worker, server, options.kills, options.cut, options.apart, random.Random(options.seed))
        worker.end()
    finally:
        worker.process.kill()
    database = Database(parse_url(url) if isinstance(url, str) else url)
    rows = sums(database, usage_hours)
    database.engine.dispose()
    found = faults(load.asked, rows, worker.killed)
    return summary(load.asked, rows, found) | {"kills": len(worker.killed), "cut_s": options.cut}, found


def options_of(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cut", type=float, default=60, help="seconds that the database is away")
    parser.add_argument("--apart", type=float, default=5, help="most seconds from a start to the next kill")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--keys", type=int, default=20000, help="most requests")
    parser.add_argument("--seed", type=int, default=26)
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """Exit status: 0, or 1 where a row is not what its client saw."""
    options = options_of(arguments)
    server = Server(installed())
    try:
        server.start()
        server.run("CREATE DATABASE ledger")
        fresh = Fresh(server, "ledger")
        with tempfile.TemporaryDirectory() as folder:
            secret = Path(folder, "password")
            secret.write_text(fresh.password)
            settings = {"LINGBI_DATABASE_URL": fresh.address, "LINGBI_DATABASE_PASSWORD_FILE": str(secret)}
            report, found = run(Path(folder), fresh.url, server, options, **settings)
    finally:
        server.remove()
    for fault in found:
        print(fault)
    print(json.dumps(report))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
