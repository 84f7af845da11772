"""Two 7B models in turn on a card of which they may take 24 GB: seconds of a swap by part, and the memory after twenty.

Random weights in the published geometries, 35 GB of disk; about six minutes. Prints a table: run it with -s.
"""

import json
import os
import statistics
import time
from pathlib import Path

import httpx
import pynvml
import pytest

from lingbi.launch.supervision import wait_until
from lingbi.model import catalogue
from tests.client import CHAT, SCENES, client_options, question
from tests.geometries import PUBLISHED, random_weights
from tests.on_demand import running_on_demand

CARD_MIB = 24 << 10
SWAPS, SAME_MIB = 20, 64
MOST_S = 8.0  # from the request to its first token, with weights in the page cache

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


def gpu_used_mib() -> int:
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
    """Seconds from a streamed question about a picture to its first token."""
    began, first = time.monotonic(), 0.0
    body = question(server, SCENES[number % len(SCENES)], stream=True, ignore_eos=True)
    with (
        httpx.Client(**client_options(server) | {"timeout": 300}) as client,
        client.stream("POST", CHAT, json=body) as got,
    ):
        assert got.status_code == 200
        for line in got.iter_lines():
            if line.startswith("data: ") and not first:
                assert json.loads(line.removeprefix("data: "))["model"] == server["model"], line
                first = time.monotonic() - began
    return first


@pytest.mark.parametrize("names", [("vl-7b", "4khd-7b")])
def test_two_models_take_turns_on_a_card_and_leave_no_memory_behind(tmp_path, names):
    models = [catalogue.find(name) for name in names]
    before_mib = gpu_used_mib()
    with random_weights(models[0], tmp_path / names[0]) as one, random_weights(models[1], tmp_path / names[1]) as two:
        settings = {"LINGBI_ENGINE": "turbomind", "LINGBI_GPU_MEMORY_MIB": str(CARD_MIB)}
        with running_on_demand(tmp_path / "state", [one, two], **settings) as host:
            asleep_mib = gpu_used_mib()
            assert asleep_mib - before_mib <= SAME_MIB, "a worker that stands by holds memory of the card"
            assert not any(has_driver(process.pid) for process in host.processes), "copies of it could not use the GPU"
            seconds, used = [], []
            for swap in range(SWAPS + 2):
                seconds.append(first_token_s(host.servers[swap % 2], swap))
                used.append(gpu_used_mib())
                assert used[-1] - before_mib <= CARD_MIB
            show(host, seconds[2:], used)
            assert host.wakes() == SWAPS + 2
        assert wait_until(lambda: gpu_used_mib() - before_mib <= SAME_MIB, 30)
    for model in (0, 1):
        assert used[SWAPS + model] - used[model] <= SAME_MIB, used
    assert statistics.median(seconds[2:]) <= MOST_S


def show(host, seconds: list[float], used: list[int]) -> None:
    print(
        f"\nfirst token after {statistics.median(seconds):.2f} s (median of {len(seconds)}), at most {max(seconds):.2f} s"
    )
    print(f"MiB of the card after each swap: {used}")
    for number, server in enumerate(host.servers):
        found = json.loads((host.state_dir / f"run/worker-{number}.wakes").read_text())
        each = {part: round(spent / found["wakes"], 2) for part, spent in found["seconds"].items()}
        print(f"{server['model']}: {found['wakes']} wakes, mean seconds by part: {each}")
