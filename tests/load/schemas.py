"""Answers in every form of tests/schemas.py, judged by another validator: `python -m tests.load.schemas --answers 2000`.

Starts a server with the demo model (or --model FOLDER, such as one of scripts/make-model) and asks many at once, greedy and
sampled, whole and streamed. Exits with 1 unless every answer is valid and whole.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.client import CHAT, body, client_options
from tests.conftest import running_server
from tests.schemas import CHOICES, REGEXES, SCHEMAS, regex_fault, schema_fault

MAX_TOKENS = 600
QUESTION = "Describe the picture."
COUNTS = re.compile(r'^(lingbi_(?:bound|completion)_\w+?)(?:\{(?:kind="(\w+)",)?model="[^"]*"\})? (\S+)$', re.MULTILINE)
FORMS = (
    [("schema", name, {"guided_json": schema}) for name, schema in SCHEMAS.items()]
    + [("regex", name, {"guided_regex": pattern}) for name, pattern in REGEXES.items()]
    + [("choice", "choices", {"guided_choice": CHOICES})]
)


@dataclass
class Outcome:
    """What came of a run: answers that are right, what is wrong with others, and tokens and seconds in all."""

    valid: int = 0
    faults: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0


def fault(kind: str, source: dict, text: str, reason: str) -> str | None:
    """What is wrong with an answer."""
    if reason != "stop":
        return f"ended with {reason}: {text[:80]!r}"
    (source,) = source.values()
    if kind == "schema":
        try:
            return schema_fault(source, json.loads(text))
        except ValueError as error:
            return f"{error}: {text[:80]!r}"
    return regex_fault(source, text) if kind == "regex" else None if text in source else f"{text!r} is no choice"


async def ask(client: httpx.AsyncClient, server: dict, number: int, options: dict) -> tuple[str, str, int]:
    """(text, finish reason, tokens) of one answer; every second one is sampled, every third streamed."""
    sampling = {"temperature": 1.0, "top_k": (0, 40)[number % 4 == 3], "seed": number} if number % 2 else {}
    asked = body(server, [{"role": "user", "content": QUESTION}], **options | sampling | {"max_tokens": MAX_TOKENS})
    if number % 3:
        response = await client.post(CHAT, json=asked)
        response.raise_for_status()
        (choice,), usage = response.json()["choices"], response.json()["usage"]
        return choice["message"]["content"], choice["finish_reason"], usage["completion_tokens"]
    text, reason, tokens = "", "", 0
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", CHAT, json=asked) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                tokens = (event.get("usage") or {"completion_tokens": tokens})["completion_tokens"]
                for choice in event["choices"]:
                    text += choice["delta"].get("content", "")
                    reason = choice["finish_reason"] or reason
    return text, reason, tokens


async def ask_all(server: dict, answers: int, at_once: int) -> Outcome:
    """Ask for so many answers, each form in turn."""
    outcome, gate, began = Outcome(), asyncio.Semaphore(at_once), time.monotonic()

    async def one(number: int, kind: str, name: str, options: dict) -> None:
        async with gate:
            text, reason, tokens = await ask(client, server, number, options)
        outcome.tokens += tokens
        found = fault(kind, options, text, reason)
        outcome.valid += found is None
        outcome.faults += [f"{name}: {found}"] if found else []

    async with httpx.AsyncClient(**client_options(server) | {"timeout": 600}) as client:
        forms = itertools.islice(itertools.cycle(FORMS), answers)
        asked = [(number, *form) for number, form in enumerate(forms)]
        random.Random(0).shuffle(asked)
        await asyncio.gather(*(one(*each) for each in asked))
    outcome.seconds = time.monotonic() - began
    return outcome


def counts(server: dict) -> dict[str, float]:
    """The server's counts of bound tokens, by kind, and of tokens in all."""
    text = httpx.get(server["url"] + "/metrics", trust_env=False).text
    return {kind or name: float(value) for name, kind, value in COUNTS.findall(text) if not name.endswith("_created")}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.schemas", description=__doc__.split("\n")[0])
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--engine", choices=("cpu", "turbomind"), default="cpu")
    options = parser.parse_args(arguments)
    choice = ("--model", options.model, "--engine", options.engine)
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "state", *choice) as server:
        outcome = asyncio.run(ask_all(server, options.answers, options.at_once))
        print(json.dumps(counts(server)))
    print(f"{outcome.valid} of {options.answers} valid, {outcome.tokens} tokens, {outcome.seconds:.0f} s")
    print("\n".join(outcome.faults[:20]))
    return 0 if outcome.valid == options.answers else 1


if __name__ == "__main__":
    sys.exit(main())
