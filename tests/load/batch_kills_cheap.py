"""Workers of batches that cost next to nothing: the runner, the store and the database are real, the application is not.

They are forked, so that a new one is there at once; see batch_kills.py.
"""

import asyncio
import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

from starlette.responses import JSONResponse

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.ring import KeyRing
from lingbi.batch import batches, claims, files
from lingbi.batch.store import store_of
from lingbi.heartbeat import Vitals
from lingbi.http.batch import runner
from lingbi.http.metrics import Metrics
from lingbi.http.readiness import READY, Readiness
from lingbi.http.service import Service
from lingbi.settings import Settings
from tests.server.conftest import NoEngine

WORKERS, PLACES, LOST_S, LONGEST_S = 3, 8, 1.5, 60
MODEL, ENDPOINT = "model", "/v1/chat/completions"
fork = multiprocessing.get_context("fork")


def with_store(state_dir: Path, work):
    """What work(store) returns; the database is closed again, since no connection may outlive a fork."""
    database = Database(parse_url(f"sqlite:///{state_dir}/accounts/accounts.db"))
    try:
        database.bring_up_to_date()
        return work(store_of(Settings(state_dir=state_dir), database))
    finally:
        database.engine.dispose()


def measure(state_dir: Path, kills: int, count: int) -> dict:
    """As batch_kills.measure, with WORKERS workers at once."""
    from tests.load.batch_kills import faults_of

    state_dir.mkdir()
    save_keys(state_dir / "keys", [Key("one", digest(b"secret"))])
    asked, began = [f"id-{number}" for number in range(count)], time.monotonic()
    batch_id = with_store(state_dir, lambda store: submitted(store, asked))
    workers, seen = [started(state_dir) for _ in range(WORKERS)], []
    try:
        for number in range(kills):
            seen.append(wait(state_dir, batch_id, lambda row, least=number * count // (kills + 1): done(row) >= least))
            time.sleep(random.uniform(0, 0.1))
            place = number % WORKERS
            # Every fifth drains, as at a restart.
            workers[place].terminate() if number % 5 == 4 else workers[place].kill()
            workers[place].join(LONGEST_S)
            workers[place] = started(state_dir)
        wait(state_dir, batch_id, lambda row: row["status"] == "completed")
    finally:
        for worker in workers:
            worker.kill()
            worker.join(LONGEST_S)
    found = {kind: with_store(state_dir, lambda store, kind=kind: told(store, batch_id, kind)) for kind in KINDS}
    faults = faults_of(asked, found["output"], found["errors"], is_right)
    seconds = round(time.monotonic() - began, 1)
    return {"lines": count, "seconds": seconds, "killed": seen, "faults": faults}


KINDS = ("output", "errors")


def submitted(store, asked: list) -> str:
    """The id of a batch that asks for each name's own echo."""
    bodies = [{"model": MODEL, "messages": [], "user": name} for name in asked]
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body})
        for name, body in zip(asked, bodies, strict=True)
    ]
    content = "\n".join(lines).encode()
    columns = {"endpoint": ENDPOINT, "completion_window": "24h"}
    with store.database.begin() as connection:
        file = files.add(connection, owner="one", filename="x", purpose="batch", bytes=len(content))["id"]
        batch = batches.create(connection, "one", 3600, input_file_id=file, **columns)["id"]
    writer = store.storage.begin(file)
    writer.write(content)
    writer.finish()
    return batch


def told(store, batch_id: str, kind: str) -> list:
    return [json.loads(text) for text in claims.results(store.database, batch_id, kind)]


def is_right(result: dict) -> bool:
    return result["response"]["body"] == {"echo": result["custom_id"]}


def done(row: dict) -> int:
    return row["completed"] + row["failed"]


def wait(state_dir: Path, batch_id: str, is_over) -> dict:
    """How far the batch is, once that is so."""

    def shown(store) -> dict:
        with store.database.read() as connection:
            return dict(batches.find(connection, None, batch_id))

    until = time.monotonic() + LONGEST_S
    while not is_over(row := with_store(state_dir, shown)):
        assert time.monotonic() < until, row
        time.sleep(0.02)
    return {"status": row["status"], "done": done(row)}


def started(state_dir: Path):
    worker = fork.Process(target=run, args=(state_dir,))
    worker.start()
    return worker


def run(state_dir: Path) -> None:
    """What a worker is, until it is killed or drained."""
    claims.LOST_S, runner.SIGN_S, runner.LOOK_S, runner.IDLE_LOOK_S = LOST_S, LOST_S / 5, 0.05, 0.1
    random.seed()
    service = Service(
        Settings(state_dir=state_dir),
        Readiness(MODEL, "cpu", "a test"),
        KeyRing(state_dir / "keys"),
        Metrics(),
        Vitals(),
    )
    with_store(state_dir, lambda store: asyncio.run(answer_lines(service, store)))


async def answer_lines(service: Service, store) -> None:
    service.store = store
    service.take_engine(NoEngine(), PLACES)
    service.readiness.enter(READY)
    one = runner.Runner(service, echo, store, f"w-{random.getrandbits(64):x}")

    def drain() -> None:
        service.takes_lines = False
        one.changed.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain)
    await one.run()


async def echo(scope, receive, send) -> None:
    """An application that takes a short while to tell who asks."""
    body = json.loads((await receive())["body"])
    await asyncio.sleep(random.uniform(0, 0.04))
    await JSONResponse({"echo": body["user"]})(scope, receive, send)
