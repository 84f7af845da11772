"""What bodies cost a worker: `python -m tests.server.http.body_costs [NAME …]` measures in a process of its own.

The application is the real one, with the demo model. For each body a line of JSON: the answer's status, code and sentence;
its seconds; how late a task came at most that runs every millisecond; and how far the peak of the process's memory rose
above what it had, with the client's own copy of the body, before the request.
"""

import asyncio
import ctypes
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lingbi.garbage import keep_from_collector
from tests.load.fuzz import CHAT, COMPLETIONS, MODEL, application

RESPONSES = "/v1/responses"
MIB, PIECE_BYTES = 1 << 20, 64 << 10
PICTURE = "data:image/png;base64,"
LAG_S, TRIES = 0.02, 4


def body(field: str, value: object, **others: object) -> bytes:
    """A request with this value in this field."""
    return json.dumps({"model": MODEL, "messages": "hello", "max_tokens": 1} | {field: value} | others).encode()


def said(content: object, role: str = "user", **others: object) -> bytes:
    """A conversation of one message."""
    return body("messages", [{"role": role, "content": content, **others}])


def raw(field: str, text: str) -> bytes:
    """A request with JSON text in a field."""
    return body(field, "PLACE").replace(b'"PLACE"', text.encode())


def seen(url: str) -> bytes:
    """A question about a picture."""
    return said([{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}])


def called(name: str, times: int) -> bytes:
    """A history in which a tool of this name was called, and has answered so often."""
    call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": name}}]}
    return body("messages", [call, *[{"role": "tool", "tool_call_id": "1", "content": "a"}] * times])


def text(mebibytes: float, word: str = "<a>") -> str:
    return word * (int(mebibytes * MIB) // len(word.encode()))


# {name: (path, a function that makes the body)}
BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a million integers": (CHAT, lambda: raw("messages", f"[{'12345,' * 999_999}1]")),
    "a million parts": (CHAT, lambda: said([1] * 1_000_000)),
    "a million empty lists": (CHAT, lambda: raw("extra", f"[{'[],' * 1_000_000}1]")),
    "a million prompts": (COMPLETIONS, lambda: body("prompt", ["a"] * 1_000_000)),
    "a million stop words": (CHAT, lambda: body("stop", [1] * 1_000_000)),
    "a million items": (RESPONSES, lambda: body("input", [{}] * 1_000_000)),
    "a million tools": (CHAT, lambda: body("tools", [{}] * 1_000_000)),
    "wide metadata": (RESPONSES, lambda: body("metadata", {str(n): "a" for n in range(300_000)}, input="hello")),
    "wide tools": (CHAT, lambda: body("tools", [{"function": {str(n): [n] for n in range(300_000)}}])),
    "as many errors as values": (CHAT, lambda: said([{"type": "text"}] * 1024)),
    "a long text": (CHAT, lambda: said(text(29))),
    "a long text in parts": (CHAT, lambda: said([{"type": "text", "text": text(0.03)}] * 1000)),
    "a text that parses": (CHAT, lambda: said(text(1.9))),
    "a text of emoji": (CHAT, lambda: said("\U0001f642" * 80_000)),
    "letters beyond ASCII": (
        CHAT,
        lambda: json.dumps({"model": MODEL, "messages": "\U0001f642" * 40_000}, ensure_ascii=False).encode(),
    ),
    "a text of quotation marks": (CHAT, lambda: said('"' * 10_000_000)),
    "a text of backslashes": (CHAT, lambda: said("\\" * 15_000_000)),
    "a long prompt": (COMPLETIONS, lambda: body("prompt", text(29))),
    "many prompts": (COMPLETIONS, lambda: body("prompt", [text(0.1)] * 16)),
    "a long question": (RESPONSES, lambda: body("input", text(29))),
    "long instructions": (RESPONSES, lambda: body("instructions", text(1.5), input="hello")),
    "a long stop word": (CHAT, lambda: body("stop", text(29))),
    "a stop word that parses": (CHAT, lambda: body("stop", text(1))),
    "a long model name": (CHAT, lambda: body("model", text(29))),
    "a model name that parses": (CHAT, lambda: body("model", text(1))),
    "a long user": (CHAT, lambda: body("user", text(1))),
    "a long role": (CHAT, lambda: said("hello", role=text(1))),
    "a long number of answers": (CHAT, lambda: body("n", text(1, "["))),
    "a wide number of answers": (CHAT, lambda: body("n", [[1] * 1000] * 10)),
    "a long tool name": (CHAT, lambda: called(text(0.01), 3000)),
    "a tool called often": (CHAT, lambda: called("a" * 256, 3000)),
    "a huge key": (CHAT, lambda: body(text(29), 1)),
    "a huge key like a URL": (CHAT, lambda: body("data:" + text(29), 1)),
    "deep lists": (CHAT, lambda: raw("extra", "[" * 10_000_000)),
    "deep objects": (CHAT, lambda: raw("extra", '{"a":' * 300_000)),
    "deep tools": (CHAT, lambda: raw("tools", '[{"a":' + "[" * 150 + "]" * 150 + "}]" * 1)),
    "keys twice": (CHAT, lambda: raw("extra", "{" + '"a":1,' * 100_000 + '"a":1}')),
    "messages twice": (CHAT, lambda: raw("extra", "1" + ',"messages":[1]' * 100_000)),
    "blanks": (CHAT, lambda: raw("extra", " " * 29 * MIB + "1")),
    "a large exponent": (CHAT, lambda: raw("temperature", "1e400000")),
    "a large exponent of a whole number": (CHAT, lambda: raw("seed", "1e400000")),
    "a million digits": (CHAT, lambda: raw("seed", "1" * 1_000_000)),
    "4000 digits": (CHAT, lambda: raw("temperature", "1" * 4000)),
    "a million decimals": (CHAT, lambda: raw("temperature", "3." + "1" * 1_000_000)),
    "a lone surrogate": (CHAT, lambda: raw("user", '"' + "\\ud800" * 100_000 + '"')),
    "half a string": (CHAT, lambda: raw("messages", '"' + text(1))),
    "no UTF-8": (CHAT, lambda: said("hello").replace(b"hello", b"\xff" * MIB)),
    "zeros": (CHAT, lambda: bytes(29 * MIB)),
    "a name with NUL": (CHAT, lambda: body("model", "\0" * 1000)),
    "a URL of text": (CHAT, lambda: seen("data:" + text(29, "\u4e2d"))),
    "a URL of escapes": (CHAT, lambda: seen("data:" + text(14, "\\"))),
    "a URL with a control character": (
        CHAT,
        lambda: seen(PICTURE + text(20, "AAAA") + "\1").replace(b"\\u0001", b"\1"),
    ),
    "URLs in thousands": (CHAT, lambda: said([{"type": "image_url", "image_url": {"url": PICTURE}}] * 1024)),
    "many long URLs": (
        CHAT,
        lambda: said([{"type": "image_url", "image_url": {"url": PICTURE + text(0.2, "AAAA")}}] * 140),
    ),
    "a URL that is no base64": (CHAT, lambda: seen(PICTURE + text(26, "????"))),
    "a URL whose last character is no base64": (CHAT, lambda: seen(PICTURE + text(26, "AAAA") + "?")),
    "a URL with escaped slashes": (CHAT, lambda: seen(PICTURE + text(13, "////") + "?").replace(b"/", b"\\/")),
    "messages that fit": (CHAT, lambda: body("messages", [{"role": "user", "content": "a"}] * 4096)),
    "items that fit": (RESPONSES, lambda: body("input", [{"role": "user", "content": "a"}] * 4096)),
    "calls that fit": (
        CHAT,
        lambda: body("messages", [{"role": "assistant", "tool_calls": [{"function": {"name": "a"}}] * 1024}] * 5),
    ),
    "tools that fit": (RESPONSES, lambda: body("tools", [{"a": [0] * 15}] * 900, input="hello")),
    "large tools that fit": (RESPONSES, lambda: body("tools", [{"a": text(0.002)}] * 900, input="hello")),
}


def peak_bytes() -> int:
    """The peak of this process's memory since it was forgotten last."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def forget_peak() -> None:
    """Have the peak begin at what the process needs now (proc(5), clear_refs)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that is kept for later would hide what later takes
    Path("/proc/self/clear_refs").write_text("5")


class Lag:
    """How late a task comes that wants to run every millisecond, as far as this process was at work meanwhile: what other
    processes take of the machine's cores is no fault of its own."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def watch(self) -> None:
        last, worked = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now, done = time.perf_counter(), time.process_time()
            self.worst_s = max(self.worst_s, min(now - last - 0.001, done - worked))
            last, worked = now, done


async def ask(app, key: str, path: str, content: bytes) -> tuple[int, bytes]:
    """The status and the body of an answer; the request comes in pieces, as from a network."""
    places = iter(range(0, len(content), PIECE_BYTES))
    sent = []

    async def receive():
        await asyncio.sleep(0)
        begin = next(places, None)
        if begin is None:
            await asyncio.Event().wait()
        more = begin + PIECE_BYTES < len(content)
        return {"type": "http.request", "body": content[begin : begin + PIECE_BYTES], "more_body": more}

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-length", str(len(content)).encode())]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "client": ("test", 1),
        "server": ("test", 80),
    }
    await app(scope | {"asgi": {"version": "3.0"}, "root_path": ""}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def measured(app, key: str, name: str) -> dict:
    """What a body costs."""
    path, make = BODIES[name]
    content = make()
    forget_peak()
    before, lag = peak_bytes(), Lag()
    watch = asyncio.create_task(lag.watch())
    begun = time.perf_counter()
    status, answer = await ask(app, key, path, content)
    seconds = time.perf_counter() - begun
    await asyncio.sleep(0.005)
    watch.cancel()
    error = json.loads(answer).get("error") or {}
    told = {"status": status, "code": error.get("code"), "sentence": error.get("message"), "param": error.get("param")}
    costs = {"seconds": round(seconds, 4), "lag_s": round(lag.worst_s, 4), "grown_bytes": peak_bytes() - before}
    return {"name": name, "bytes": len(content)} | told | costs


async def run(names: list[str]) -> None:
    """Print what these bodies cost."""
    with tempfile.TemporaryDirectory() as folder:
        app, key = await application(Path(folder))
        await ask(app, key, CHAT, body("seed", 1))
        keep_from_collector()
        for name in names:
            costs = [await measured(app, key, name)]
            while min(cost["lag_s"] for cost in costs) > LAG_S and len(costs) < TRIES:
                costs.append(await measured(app, key, name))  # caches of a shared machine are cold at times
            print(json.dumps(min(costs, key=lambda cost: cost["lag_s"])), flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:] or list(BODIES)))
