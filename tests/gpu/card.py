"""What the GPU's tests of models on demand ask of the card and of a server."""

import json
import os
import time
from pathlib import Path

import httpx
import pynvml

from tests.client import CHAT, SCENES, client_options, question


def card_used_mib() -> int:
    """MiB in use on the first GPU that is visible here."""
    pynvml.nvmlInit()
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used >> 20
    finally:
        pynvml.nvmlShutdown()


def has_driver(pid: int) -> bool:
    """Whether a process has opened the GPU's driver."""
    return any("nvidia" in os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())


def first_token_s(server: dict, number: int) -> float:
    """Seconds from a streamed question about a picture to its first token; the rest of the answer is read too."""
    began, first = time.monotonic(), 0.0
    body = question(server, SCENES[number % len(SCENES)], stream=True, ignore_eos=True)
    with (
        httpx.Client(**client_options(server) | {"timeout": 300}) as client,
        client.stream("POST", CHAT, json=body) as got,
    ):
        assert got.status_code == 200, got.read()
        for line in got.iter_lines():
            if line.startswith("data: ") and not first:
                assert json.loads(line.removeprefix("data: "))["model"] == server["model"], line
                first = time.monotonic() - began
    return first
