"""What the gateway costs: the same questions through it and directly at the server, in turns, in one run.

`python -m tests.load.front` starts one worker, with the demo model where no other is named, and the gateway before it.
On a machine with a GPU and cores to spare (`--engine turbomind --model FOLDER`) neither takes from the other. It prints
requests/s and the time to first token of both ways with the rounds' ratios and differences, how late a
streamed chunk is, and the gateway's memory with 200 idle streams and 50 uploads of 20 MB at once.
Both sides of a comparison alternate, so that what else the machine does weighs on both.
"""

import argparse
import asyncio
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

from lingbi.settings import PREFIX
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES
from tests.conftest import free_port, running_worker
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
        if request.url.path.endswith("/upload"):
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
    async with httpx.AsyncClient(timeout=60) as client, client.stream("POST", url + CHAT, content=b"{}") as answer:
        async for line in answer.aiter_lines():
            if line:
                late.append((time.monotonic() - float(line.removeprefix("data: "))) * 1000)
    assert len(late) == CHUNKS, len(late)
    late.sort()
    return {"median_ms": round(statistics.median(late), 2), "p99_ms": round(late[-3], 2), "max_ms": round(late[-1], 2)}


async def fill(gateway) -> dict:
    """The gateway's memory with idle streams and uploads at once, MiB, at its highest."""
    processes = [psutil.Process(gateway.process.pid), *psutil.Process(gateway.process.pid).children()]
    peak, is_done = 0.0, asyncio.Event()

    async def watch():
        nonlocal peak
        while not is_done.is_set():
            peak = max(peak, sum(process.memory_full_info().pss for process in processes) / (1 << 20))
            await asyncio.sleep(0.05)

    async def upload(client, path: str):
        # A body in parts, so that this side does not hold all of them at once.
        parts = (b"x" * (1 << 16) for _ in range(UPLOAD_MIB * 16))
        headers = {"Content-Length": str(UPLOAD_MIB << 20)}
        answer = await client.post(gateway.url + path, content=_later(parts), headers=headers)
        return answer.status_code == 200 and answer.json()["bytes"] == UPLOAD_MIB << 20

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        watcher = asyncio.create_task(watch())
        streams = [client.build_request("POST", gateway.url + CHAT + "?idle=1", content=b"{}") for _ in range(STREAMS)]
        answers = await asyncio.gather(*(client.send(stream, stream=True) for stream in streams))
        assert {answer.status_code for answer in answers} == {200}, {answer.status_code for answer in answers}
        paths = ["/v1/upload", "/gradio_api/upload"] * (UPLOADS // 2)
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


async def measure_streams() -> dict:
    """Lateness through the gateway and directly, and memory, over a server made for it."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(clock_server(), port=port, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    address = f"127.0.0.1:{port}"
    plenty = {"ADDRESS_CONNECTIONS": 1000, "ADDRESS_RATE": 10000}
    with running_gateway([address], UI=address, **plenty) as gateway:
        late = {"gateway": await lateness(gateway.url), "direct": await lateness(f"http://{address}")}
        memory = await fill(gateway)
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
    options = parser.parse_args(arguments)
    command, threads = [], options.threads
    if options.apart:
        first, *others = sorted(os.sched_getaffinity(0))
        command, threads = ["taskset", "--cpu-list", str(first), sys.executable, "-m", "lingbi.worker"], "1"
        os.sched_setaffinity(0, others)
    streams = asyncio.run(measure_streams())
    print(json.dumps({"streams": streams}), flush=True)
    failed = not streams["within_bounds"]
    settings = {"MODEL": options.model, "ENGINE": options.engine, "CPU_THREADS": threads}
    settings = {PREFIX + name: value for name, value in settings.items()}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_worker(Path(folder) / "state", *command, **settings) as worker,
    ):
        address = worker["url"].removeprefix("http://")
        with running_gateway([address], KEY_RATE=100000, ADDRESS_RATE=100000) as gateway:
            urls = {"gateway": gateway.url, "direct": worker["url"]}
            for name, messages in (("text", [{"role": "user", "content": "hello"}]), ("picture", image())):
                body = {"model": worker["model"], "messages": messages, "max_tokens": TOKENS, "temperature": 0}
                body |= {"ignore_eos": True, "stream": True}
                found = asyncio.run(compare(urls, worker["key"], body, options))
                report = judge(found, MAX_COST, MAX_FIRST_TOKEN_MS)
                print(json.dumps({"question": name} | report), flush=True)
                failed |= not report["within_bounds"]
    return int(failed)


def image() -> list:
    return [turn(QUESTION, data_url(SCENES[0]))]


if __name__ == "__main__":
    sys.exit(main())
