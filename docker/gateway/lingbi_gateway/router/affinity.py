"""Which server a request goes to: the one that holds its conversation or its picture, unless that one is full.

Everything here is pure. The servers are ranked by a hash of what a request begins with and of each server's address
(rendezvous hashing, Thaler and Ravishankar 1998): every gateway ranks alike without asking another, and when a server joins or
leaves, only the conversations that it has first place for move. A request takes the first server of its rank that is not
full (after consistent hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018).

A server is full when it has `bound` running requests of this gateway. The bound times the servers is always more than all
requests that run, so one of them is not full; and right after a request is placed, its server has at most SHARE times the mean,
or FEW. A new conversation also passes over servers that have more than the mean, so that fewer of its later requests find
their server full; a gateway remembers where it went for as long as it has room, and others try the rank.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHARE = 1.5
FEW = 7  # so many run beside each other at hardly any cost, and the mean of a quiet fleet is below one
RESULTS = ("kept", "spilled", "moved", "new")  # how a request was placed
COMPLETION_CHARACTERS = 256  # of a prompt without messages, which its next request repeats and goes on with


@dataclass(frozen=True)
class Placed:
    """The server of a request; is_spilled: the servers before it in its rank were full."""

    server: str
    is_spilled: bool


@dataclass(frozen=True)
class Beginning:
    """What a request begins with. is_new: it answers nothing yet, so that only another request could have left it there."""

    digest: bytes
    is_new: bool


def beginning(asked: Mapping[str, Any]) -> Beginning | None:
    """Of a request's JSON; None where there is nothing to tell it by."""
    found = opening(asked)
    messages = asked.get("messages", asked.get("input"))
    roles = [message.get("role") for message in _dicts(messages)]
    return Beginning(found, "assistant" not in roles) if found else None


def opening(asked: Mapping[str, Any]) -> bytes | None:
    """What the requests of a conversation, or about one picture, have in common; None where there is nothing.

    It is the client's own `prompt_cache_key`; else the first picture of the first question; else the text up to the end of
    the first question. API keys are no part of it: the servers keep sessions and pictures' features by content alone.
    """
    key = asked.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return _digest("key", key)
    messages = asked.get("messages", asked.get("input"))
    if isinstance(messages, str):
        return _digest("text", messages)
    if isinstance(messages, list):
        return _conversation(messages, asked.get("instructions"))
    prompt = asked.get("prompt")
    first = prompt[0] if isinstance(prompt, list) and prompt else prompt
    return _digest("prompt", first[:COMPLETION_CHARACTERS]) if isinstance(first, str) else None


def _conversation(messages: list[Any], instructions: Any) -> bytes | None:
    texts = [instructions] if isinstance(instructions, str) else []
    for message in messages:
        if not isinstance(message, dict):
            return None
        parts = _parts(message.get("content"))
        pictures = [url for part in parts if isinstance(url := _picture(part), str)]
        if pictures:
            return _digest("picture", pictures[0])
        texts += [text for part in parts if isinstance(text := part.get("text"), str)]
        if message.get("role") == "user":
            break
    return _digest("text", *texts)


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return _dicts(content)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _picture(part: dict[str, Any]) -> Any:
    """The URL of a part, in the form of chat completions or of Responses."""
    url = part.get("image_url")
    return url.get("url") if isinstance(url, dict) else url


def _digest(kind: str, *texts: str) -> bytes:
    found = hashlib.blake2b(kind.encode(), digest_size=16)
    for text in texts:
        found.update(b"\0" + text.encode("utf-8", "surrogatepass"))
    return found.digest()


def ranked(servers: Sequence[str], begins: bytes) -> list[str]:
    """The servers (HOST:PORT) in the order in which they are tried for what a request begins with."""
    return sorted(servers, key=lambda server: hashlib.blake2b(server.encode(), key=begins, digest_size=8).digest())


def bound(running: int, servers: int) -> int:
    """How many requests one server may have when so many run on all, the new one among them."""
    return max(FEW, int(SHARE * running / servers))


def mean(running: int, servers: int) -> int:
    """The same for a request whose beginning no server can hold yet: at most the mean, rounded up."""
    return -(-running // servers)


def result(placed: Placed, home: str | None) -> str:
    """One of RESULTS. home: the server that had the last request with this beginning, if it is known; where it is not,
    there was nothing to keep, whichever server of its rank the request went to."""
    if home is None:
        return "new"
    if placed.is_spilled:
        return "spilled"
    return "kept" if placed.server == home else "moved"


def place(servers: Sequence[str], loads: Mapping[str, int], begins: Beginning, home: str | None = None) -> Placed:
    """The server for a request. servers: at least one; loads: the requests that run on each of them now; home: the server
    that had the last request with this beginning, if it is known."""
    first = [home] if home is not None and home in servers else []
    order = [*first, *(server for server in ranked(servers, begins.digest) if server != home)]
    running = sum(loads.get(server, 0) for server in servers) + 1
    most = mean(running, len(servers)) if begins.is_new and not first else bound(running, len(servers))
    chosen = next(server for server in order if loads.get(server, 0) < most)
    return Placed(chosen, chosen != order[0])
