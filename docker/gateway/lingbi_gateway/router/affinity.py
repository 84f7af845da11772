"""Which server a request goes to: the one that holds its conversation or its picture, unless that one is full.

Everything here is pure. The servers are ranked by a hash of what a request begins with and of each server's address
(rendezvous hashing, Thaler and Ravishankar 1998): every gateway ranks alike without asking another, and when a server joins or
leaves, only the conversations that it has first place for move. A request takes the first server of its rank that is not
full (after consistent hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018).

A server is full for a follow-up when it has `bound` running requests of this gateway: right after it is placed, its server has
at most SHARE times the mean, or FEW. A first question has no session to find, and makes one: it already passes over servers that
have more than the mean, so that fewer follow-ups find their server full, and so that many people who ask about one picture are
shared out. Either number times the servers is always more than all requests that run, so there is a server that takes it.

A gateway remembers where conversations went for as long as it has room, also those that begin alike; others try the rank.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHARE = 1.5
FEW = 7  # so many run beside each other at hardly any cost, and the mean of a quiet fleet is below one
FEW_FIRST = 3  # the same for first questions about one picture: another server only has to compute the picture once
RESULTS = ("kept", "spilled", "moved", "new")  # how a request was placed
COMPLETION_CHARACTERS = 256  # of a prompt without messages, which its next request repeats and goes on with
END = 256  # characters of a picture
MESSAGES = 4096  # of a conversation; the servers refuse more


@dataclass(frozen=True)
class Placed:
    """The server of a request; is_spilled: the servers before it in its rank were full."""

    server: str
    is_spilled: bool


@dataclass(frozen=True)
class Beginning:
    """What a request begins with, the same in every gateway. is_new: it answers nothing yet, so that only another request
    could have left it there.

    before, now: what the conversation was at its last turn and is at this one, of this process; None where there is no such turn.
    """

    digest: bytes
    is_new: bool
    before: int | None = None
    now: int | None = None


def beginning(asked: Mapping[str, Any]) -> Beginning | None:
    """Of a request's JSON; None where there is nothing to tell it by, or more than any server takes."""
    messages = _dicts(asked.get("messages", asked.get("input")))
    found = opening(asked) if len(messages) <= MESSAGES else None
    if not found:
        return None
    answers = [place for place, message in enumerate(messages) if message.get("role") == "assistant"]
    turns = tuple(map(_turn, messages))
    before = hash((found, turns[: answers[-1]])) if answers else None
    return Beginning(found, not answers, before, hash((found, turns)) if turns else None)


def _turn(message: Mapping[str, Any]) -> int:
    """A number of what a message says. Pictures count by their ends: the first one has been read whole for the opening."""
    parts = _parts(message.get("content"))
    texts = (text for part in parts if isinstance(text := part.get("text"), str))
    pictures = (item for part in parts if isinstance(url := _picture(part), str) for item in (len(url), url[-END:]))
    return hash((str(message.get("role")), *texts, *pictures))


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
    """The same for a first question whose beginning no server is known to hold: at most the mean, rounded up."""
    return -(-running // servers)


def result(placed: Placed, home: str | None) -> str:
    """One of RESULTS. home: the server that had the last request with this beginning, if it is known; where it is not,
    there was nothing to keep, whichever server of its rank the request went to."""
    if home is None:
        return "new"
    if placed.is_spilled:
        return "spilled"
    return "kept" if placed.server == home else "moved"


def most(begins: Beginning, is_known: bool, running: int, servers: int) -> int:
    """How many requests one server may have for this one to go there. is_known: a server had one with this beginning."""
    if not begins.is_new:
        return bound(running, servers)
    return max(FEW_FIRST if is_known else 0, mean(running, servers))


def place(servers: Sequence[str], loads: Mapping[str, int], begins: Beginning, home: str | None = None) -> Placed:
    """The server for a request. servers: at least one; loads: the requests that run on each of them now; home: the server
    that had the last request with this beginning, if it is known."""
    is_known = home is not None and home in servers
    running = sum([loads.get(server, 0) for server in servers]) + 1
    room = most(begins, is_known, running, len(servers))
    if home is not None and is_known and loads.get(home, 0) < room:
        return Placed(home, False)
    order = ranked(servers, begins.digest)
    chosen = next(server for server in order if loads.get(server, 0) < room)
    return Placed(chosen, is_known or chosen != order[0])
