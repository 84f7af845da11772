"""The models that are served, as /v1/models shows them: what each model's servers say of themselves, put together."""

import asyncio
import itertools
import json
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lingbi_gateway.router.decision import Model, Refused, Routes, find

TIMEOUT_S = 2.0
MOST_BYTES = 1 << 20  # of a server's answer
AT_ONCE = 64  # servers that are asked how they are
JUDGED_S = 0.2  # after which the next server is asked to judge a key too
PATH = "/v1/models"
ALLOWED = "x-lingbi-models"  # of a server's list of models: those that a key may use, percent-encoded, where not all
STARTED = int(time.time())  # "created" of every model, as in the servers


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: its status, its body, and what that is; headers: those of a server's answer, by name in small letters."""

    status: int
    body: bytes
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


AWAY = "The service is starting, being updated, or away. Try again in a few seconds."
NOT_READY = Answer(
    503,
    json.dumps({"error": {"message": AWAY, "type": "server_error", "param": None, "code": "not_ready"}}).encode(),
)


async def models(routes: Routes, path: str, passed: dict[str, str]) -> Answer:
    """The answer to GET /v1/models and /v1/models/NAME. passed: the headers that the servers get, the key among them."""
    said = await _judged(routes, passed)
    if said.status != 200:
        return said
    allowed = allowed_models(said.headers.get(ALLOWED))
    if path == PATH:
        listed = sorted(name for name in routes.models if allowed is None or name in allowed)
        return Answer(200, json.dumps({"object": "list", "data": await _entries(routes, listed)}).encode())
    decision = find(routes, urllib.parse.unquote(path.removeprefix(f"{PATH}/")))
    if isinstance(decision, Refused):
        return Answer(decision.status, decision.body())
    if allowed is not None and decision.model not in allowed:
        return _not_allowed(decision.model, allowed)
    return Answer(200, json.dumps((await _entries(routes, [decision.model]))[0]).encode())


async def refused_client(routes: Routes, passed: dict[str, str]) -> Answer | None:
    """What a server answers to a client that it does not let in; None if it does. The keys are the servers' to judge, and
    whoever has none learns no names."""
    said = await _judged(routes, passed)
    return None if said.status == 200 else said


async def _judged(routes: Routes, passed: dict[str, str]) -> Answer:
    """What the first server that judges a client's key says: 200, 401 or 403. Another one is asked as soon as one cannot
    say, or has said nothing for JUDGED_S, so that silent servers hold nobody up."""
    turns = itertools.zip_longest(*(model.servers for model in routes.models.values()))
    left = [server for turn in turns for server in turn if server]
    asked: set[asyncio.Task[Answer | None]] = set()
    try:
        while left or asked:
            if left:
                asked.add(asyncio.create_task(ask(left.pop(0), PATH, passed)))
            said, asked = await asyncio.wait(asked, timeout=JUDGED_S, return_when=asyncio.FIRST_COMPLETED)
            for answer in filter(None, (task.result() for task in said)):
                if answer.status in (200, 401, 403):
                    return answer
        return NOT_READY
    finally:
        for task in asked:
            task.cancel()


def allowed_models(header: str | None) -> frozenset[str] | None:
    """The models that a key may use, as servers tell them; None: all."""
    return None if header is None else frozenset(urllib.parse.unquote(name) for name in header.split(",") if name)


def _not_allowed(model: str, allowed: frozenset[str]) -> Answer:
    """What a server of this model would say to such a key."""
    named = ", ".join(sorted(allowed)) or "none"
    message = f"this API key may not use the model {model!r}; it may use: {named}"
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return Answer(403, json.dumps({"error": error}).encode())


async def _entries(routes: Routes, names: list[str]) -> list[dict[str, Any]]:
    """The models' entries in the list."""
    at_once = asyncio.Semaphore(AT_ONCE)
    return list(await asyncio.gather(*(_entry(routes, name, at_once) for name in names)))


async def _entry(routes: Routes, name: str, at_once: asyncio.Semaphore) -> dict[str, Any]:
    model = routes.models[name]
    reports = await asyncio.gather(*(_report(server, at_once) for server in model.servers))
    shown = {"id": name, "object": "model", "created": STARTED, "owned_by": "lingbi"}
    aliases = (alias for alias, target in routes.aliases.items() if target == name)
    return shown | {"lingbi": facts(name, model, aliases, list(reports))}


def facts(name: str, model: Model, aliases: Iterable[str], reports: list[dict[str, Any]]) -> dict[str, Any]:
    """What lingbi says of a model beside OpenAI's fields. reports: of its servers, as /ready gives them; pure.

    A server whose model sleeps until it is asked for counts as ready. One that says it has another model than the list says
    counts as away: it refuses the requests for this one.
    """
    own = sorted((report for report in reports if report.get("model") == name), key=_rank)
    best = own[0] if own else {}
    planned = best.get("gpu") or best.get("cpu") or {}
    listed = (*model.servers, *model.drained)
    return {
        "state": _state(best),
        "progress": best.get("progress"),
        "session_length": planned.get("session_len"),
        "image_tokens": best.get("image_tokens"),
        "prompt": best.get("prompt"),
        "hosts": len({server.rpartition(":")[0] for server in listed}),
        "servers": len(listed),
        "ready": sum(report.get("status") == "ready" for report in own),
        "aliases": sorted(aliases),
    }


def _state(report: dict[str, Any]) -> str:
    """How a model is: asleep, waking, ready or draining where it is loaded on demand, else the phase of its server."""
    return str(report.get("state") or report.get("phase") or "away")


def _rank(report: dict[str, Any]) -> tuple[bool, bool, bool]:
    """What sorts the server first that will answer soonest."""
    return report.get("status") != "ready", _state(report) != "ready", _state(report) != "waking"


async def _report(server: str, at_once: asyncio.Semaphore) -> dict[str, Any]:
    """What a server's /ready says, whatever its status; empty where it does not answer."""
    async with at_once:
        said = await ask(server, "/ready", {})
    try:
        found = json.loads(said.body) if said else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def ask(server: str, path: str, headers: dict[str, str]) -> Answer | None:
    """GET a path of a server (HOST:PORT); None where no answer comes in time."""
    try:
        return await asyncio.wait_for(_asked(server, path, headers), TIMEOUT_S)
    except (OSError, ValueError, IndexError, asyncio.TimeoutError):
        return None


async def _asked(server: str, path: str, headers: dict[str, str]) -> Answer:
    host, _, port = server.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        head = {"Host": server, "Connection": "close"} | headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"GET {path} HTTP/1.0\r\n{lines}\r\n".encode("latin-1"))
        status = int((await reader.readline()).split()[1])
        told = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            told[name.lower()] = value.strip()
        body = b""
        while len(body) < MOST_BYTES and (piece := await reader.read(MOST_BYTES)):
            body += piece
        return Answer(status, body, headers=told)
    finally:
        writer.close()
