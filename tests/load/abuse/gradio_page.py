"""The page as its visitors use it: Gradio's routes in the order in which a browser calls them."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

SUBMIT = "submit"
ASSISTANT = "assistant"
OPTIONS = [0, 1, 1, 1]  # temperature, top_p, top_k, repetition penalty: a greedy answer


class PageRefused(Exception):
    """The page did not do what it was asked; the message says what came instead."""


async def open_page(client: httpx.AsyncClient, login: tuple[str, str] | None) -> int:
    """Log in where that is asked for, and open the page; returns the number of the event that asks."""
    if login:
        expect(await client.post("/login", data={"username": login[0], "password": login[1]}))
    expect(await client.get("/"))
    return event_number(expect(await client.get("/config")).json())


def event_number(config: dict[str, Any]) -> int:
    """The number of the event that asks, by the page's own description."""
    for item in config["dependencies"]:
        if SUBMIT in (event for _, event in item["targets"]):
            return int(item["id"])
    raise PageRefused(f"/config names no {SUBMIT}")


async def upload(client: httpx.AsyncClient, name: str, data: bytes) -> str:
    """The path that the page gives to a file."""
    return str(expect(await client.post("/gradio_api/upload", files={"files": (name, data)})).json()[0])


def question(number: int, text: str, paths: list[str], max_tokens: int, session: str | None = None) -> dict[str, Any]:
    """The body of a new question in a new conversation."""
    files = [{"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}} for path in paths]
    data = [{"text": text, "files": files}, [], *OPTIONS, max_tokens, ""]  # no model is picked
    return {"fn_index": number, "data": data, "session_hash": session or uuid.uuid4().hex[:11], "event_data": None}


async def answers(client: httpx.AsyncClient, body: dict[str, Any]) -> AsyncIterator[str]:
    """The answer as it grows, and at last whole. Raises PageRefused."""
    expect(await client.post("/gradio_api/queue/join", json=body))
    outputs: list[Any] = []
    parameters = {"session_hash": body["session_hash"]}
    async with client.stream("GET", "/gradio_api/queue/data", params=parameters) as response:
        if response.status_code != 200:
            raise PageRefused(f"queue/data: {response.status_code}")
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            message = json.loads(line.removeprefix("data: "))
            if message["msg"] in ("process_generating", "process_completed"):
                outputs = merged(outputs, message["output"].get("data") or [])
                if text := answer_in(outputs):
                    yield text
            if message["msg"] == "process_completed":
                if not message["success"]:
                    raise PageRefused(f"the event failed: {message['output']}")
                return
    raise PageRefused("the stream ended before the answer")


def merged(outputs: list[Any], data: list[Any]) -> list[Any]:
    """Outputs after a message: the first says them whole, the later ones say what changed in each."""
    if not outputs or not all(map(is_change, data)):
        return data
    return [changed(value, change) for value, change in zip(outputs, data, strict=True)]


def is_change(value: Any) -> bool:
    """Whether this is a list of edits: [[action, path, value], …]."""
    return isinstance(value, list) and all(
        isinstance(edit, list) and len(edit) == 3 and isinstance(edit[1], list) for edit in value
    )


def changed(value: Any, edits: list[Any]) -> Any:
    """A value after Gradio's edits."""
    for action, path, new in edits:
        if not path:
            value = value + new if action == "append" else new
            continue
        place = value
        for key in path[:-1]:
            place = place[key]
        _edit(place, action, path[-1], new)
    return value


def _edit(place: Any, action: str, key: Any, new: Any) -> None:
    if action == "append":
        place[key] += new
    elif action == "delete":
        del place[key]
    elif action == "add" and isinstance(place, list):
        place.insert(int(key), new)
    else:
        place[key] = new


def answer_in(outputs: list[Any]) -> str:
    """The assistant's last words in the history among the outputs; a note of how far the prompt is read is none.

    Raises PageRefused for a sentence that stands in place of an answer.
    """
    history = next((value for value in outputs if isinstance(value, list)), [])
    if not history or history[-1].get("role") != ASSISTANT:
        return ""
    content = history[-1]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    if (history[-1].get("metadata") or {}).get("id"):
        raise PageRefused(text)
    return "" if text.startswith("*") else text


def expect(response: httpx.Response) -> httpx.Response:
    if response.status_code not in (200, 302, 303):
        raise PageRefused(f"{response.request.url.path}: {response.status_code} {response.text[:120]}")
    return response
