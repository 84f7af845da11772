"""What the gateway costs: the same questions through it and directly at the server, in turns, in one run.

With `--routed`, what routing by model costs: the same questions through a gateway with two models and one with one.

`python -m tests.load.front` starts one worker, with the demo model where no other is named, and the gateway before it.
On a machine with a GPU and cores to spare (`--engine turbomind --model FOLDER`) neither takes from the other. It prints
requests/s and the time to first token of both ways with the rounds' ratios and differences, how late a
streamed chunk is, and the gateway's memory with 200 idle streams and 50 uploads of 20 MB at once.
Both sides of a comparison alternate, so that what else the machine does weighs on both.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from lingbi.launch.supervision import wait_until
from lingbi.settings import PREFIX
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES
from tests.conftest import answers, free_port, running_worker
from tests.gateway.conftest import running_gateway
from tests.load.sides import compare, judge

MAX_FIRST_TOKEN_MS, MAX_COST, MAX_LATE_MS, MAX_MEMORY_MIB = 3.0, 0.02, 20.0, 100
STREAMS, UPLOADS, UPLOAD_MIB = 200, 50, 20
CHUNKS, CHUNK_PAUSE_S = 200, 0.02
TOKENS = 32


def clock_server() -> Starlette:
    """A server whose stream tells when each chunk was sent, and which keeps idle streams and swallows uploads."""

    async def serve(request):
        size = sum([len(part) async for part in request.stream()])
        if "upload" in str(request.url):
            return JSONResponse({"bytes": size})
        is_idle = "idle" in request.query_params
        return StreamingResponse(chunks(is_idle), media_type="text/event-stream")

    async def chunks(is_idle: bool):
        for _ in range(1 if is_idle else CHUNKS):
            yield f"data: {time.monotonic()}\n\n"
            await asyncio.sleep(CHUNK_PAUSE_S)
        if is_idle:
            await asyncio.sleep(3600)

    return Starlette(routes=[Route("/{path:path}", serve, methods=["GET", "POST"])])


async def lateness(url: str) -> dict:
    """How long after it was sent each chunk of a stream came, ms."""
    late = []
    content = b'{"model": "clock"}'
    async with httpx.AsyncClient(timeout=60) as client, client.stream("POST", url + CHAT, content=content) as answer:
        async for line in answer.aiter_lines():
            if line:
                late.append((time.monotonic() - float(line.removeprefix("data: "))) * 1000)
    assert len(late) == CHUNKS, len(late)
    late.sort()
    return {"median_ms": round(statistics.median(late), 2), "p99_ms": round(late[-3], 2), "max_ms": round(late[-1], 2)}


async def fill(gateway, is_routed: bool) -> dict:
    """The gateway's memory with idle streams and uploads at once, MiB, at its highest; is_routed: the API's uploads are
    questions, which the router reads."""
    main = psutil.Process(gateway.process.pid)
    processes = [main, *main.children(recursive=True)]
    peak, is_done = 0.0, asyncio.Event()

    async def watch():
        nonlocal peak
        while not is_done.is_set():
            peak = max(peak, sum(process.memory_full_info().pss for process in processes) / (1 << 20))
            await asyncio.sleep(0.05)

    async def upload(client, path: str):
        # A body in parts, so that this side does not hold all of them at once.
        begin, end = b'{"picture": "', b'", "model": "clock"}'
        rest = (UPLOAD_MIB << 20) - len(begin) - len(end)
        parts = itertools.chain(
            [begin], (b"x" * (1 << 16) for _ in range(rest >> 16)), [b"x" * (rest % (1 << 16)), end]
        )
        headers = {"Content-Length": str(UPLOAD_MIB << 20)}
        answer = await client.post(gateway.url + path, content=_later(parts), headers=headers)
        return answer.status_code == 200 and answer.json()["bytes"] == UPLOAD_MIB << 20

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        watcher = asyncio.create_task(watch())
        idle = {"url": gateway.url + CHAT + "?idle=1", "content": b'{"model": "clock"}'}
        streams = [client.build_request("POST", **idle) for _ in range(STREAMS)]
        answers = await asyncio.gather(*(client.send(stream, stream=True) for stream in streams))
        assert {answer.status_code for answer in answers} == {200}, {answer.status_code for answer in answers}
        paths = [f"{CHAT}?upload=1" if is_routed else "/v1/upload", "/gradio_api/upload"] * (UPLOADS // 2)
        whole = await asyncio.gather(*(upload(client, path) for path in paths))
        is_done.set()
        await watcher
        for answer in answers:
            await answer.aclose()
    return {"peak_mib": round(peak, 1), "streams": len(answers), "whole_uploads": sum(whole)}


async def _later(parts):
    for part in parts:
        yield part
        await asyncio.sleep(0)


async def measure_streams(is_routed: bool = False) -> dict:
    """Lateness through the gateway and directly, and memory, over a server made for it; is_routed: beside another model."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(clock_server(), port=port, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    address = f"127.0.0.1:{port}"
    plenty = {"ADDRESS_CONNECTIONS": 1000, "ADDRESS_RATE": 10000}
    servers = [f"clock={address}", *[f"other={address}"] * is_routed]
    with running_gateway(servers, UI=address, **plenty) as gateway:
        late = {"gateway": await lateness(gateway.url), "direct": await lateness(f"http://{address}")}
        memory = await fill(gateway, is_routed)
    server.should_exit = server.force_exit = True
    await serving
    is_good = late["gateway"]["max_ms"] <= MAX_LATE_MS and memory["peak_mib"] < MAX_MEMORY_MIB
    is_good = is_good and memory["whole_uploads"] == UPLOADS and memory["streams"] == STREAMS
    return {"within_bounds": is_good, "chunks_late": late, "memory": memory}


def main(arguments=None) -> int:
    """Exit status: 0 within the bounds, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=40, help="requests of a side in a round")
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--threads", default="0", help="the CPU engine's threads; 0: all cores, none left for nginx")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="the worker on a core of its own, with one thread, nginx and this side on the others: what the gateway "
        "costs where it takes nothing from the engine, as beside a GPU",
    )
    parser.add_argument(
        "--routed", action="store_true", help="two models behind one gateway, beside one behind another"
    )
    options = parser.parse_args(arguments)
    command, threads = [], options.threads
    if options.apart:
        first, *others = sorted(os.sched_getaffinity(0))
        command, threads = ["taskset", "--cpu-list", str(first), sys.executable, "-m", "lingbi.worker"], "1"
        os.sched_setaffinity(0, others)
    streams = asyncio.run(measure_streams(options.routed))
    print(json.dumps({"streams": streams}), flush=True)
    failed = not streams["within_bounds"]
    settings = {"MODEL": options.model, "ENGINE": options.engine, "CPU_THREADS": threads}
    settings = {PREFIX + name: value for name, value in settings.items()}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_worker(Path(folder) / "state", *command, **settings) as worker,
        sides(worker, options.routed) as urls,
    ):
        for name, messages in (("text", [{"role": "user", "content": "hello"}]), ("picture", image())):
            body = {"model": worker["model"], "messages": messages, "max_tokens": TOKENS, "temperature": 0}
            body |= {"ignore_eos": True, "stream": True}
            found = asyncio.run(compare(urls, worker["key"], body, options))
            report = judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)
            print(json.dumps({"question": name} | report), flush=True)
            failed |= not report["within_bounds"]
    return int(failed)


@contextlib.contextmanager
def sides(worker: dict, is_routed: bool):
    """{side: URL} of the two that are compared before a worker: the gateway and none, or one that routes and one that
    does not."""
    address, plenty = worker["url"].removeprefix("http://"), {"KEY_RATE": 100000, "ADDRESS_RATE": 100000}
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(running_gateway([address], **plenty)).url
        if not is_routed:
            yield {"gateway": plain, "direct": worker["url"]}
            return
        servers = [f"{worker['model']}={address}", f"other={address}"]
        routed = stack.enter_context(running_gateway(servers, **plenty))
        assert wait_until(lambda: answers(f"{routed.url}/healthz"), 10)
        yield {"routed": routed.url, "plain": plain}


def image() -> list:
    return [turn(QUESTION, data_url(SCENES[0]))]


if __name__ == "__main__":
    sys.exit(main())
