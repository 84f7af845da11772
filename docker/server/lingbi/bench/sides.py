"""Starts stock lmdeploy and lingbi on the same weights, each as its users would, and stops them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pynvml

from lingbi.bench.client import Target, ask_once
from lingbi.bench.report import MEMORY
from lingbi.engine.patches import CLIP_CONFIG, CLIP_NAME
from lingbi.errors import StartError
from lingbi.hook import STOCK
from lingbi.launch.supervision import wait_until
from lingbi.model.folder import ModelFolder

START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 60
LOOK_TIMEOUT_S = 2
MIB = 1 << 20
STOCK_FRACTION = 0.8  # lmdeploy 0.4.1's own choice (TurbomindEngineConfig.cache_max_entry_count)


@dataclass
class Server:
    """A running server, and the seconds from its start until it was ready.

    GPU memory in MiB: gpu_mib: taken besides KV cache; asked_mib: the same after the first question about an image
    (lingbi asks itself one before it is ready); cache_mib: the KV cache; before_mib: in use before the start;
    planned_mib: the most that lingbi planned to take.
    """

    target: Target
    start_s: float
    gpu_mib: int
    asked_mib: int
    cache_mib: int
    before_mib: int
    planned_mib: int | None

    def figures(self) -> dict[str, float]:
        """The figures of its start, for the report."""
        memory = dict(zip(MEMORY, (self.gpu_mib, self.asked_mib), strict=True))
        return {"starts_s": round(self.start_s, 2)} | memory


def gpu_used_mib(gpu: int) -> int:
    """MiB in use on a GPU, by all processes."""
    return int(_memory(gpu).used) // MIB


def gpu_free_mib(gpu: int) -> int:
    """MiB that are free on a GPU."""
    return int(_memory(gpu).free) // MIB


def gpu_total_mib(gpu: int) -> int:
    """MiB that a GPU has."""
    return int(_memory(gpu).total) // MIB


def _memory(gpu: int) -> Any:
    pynvml.nvmlInit()
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(gpu))
    finally:
        pynvml.nvmlShutdown()


def without_cache(used_mib: int, before_mib: int, gpu: int, cache_fraction: float) -> int:
    """MiB that a stock server took besides its KV cache, which is a fraction of what the rest left free."""
    return round((used_mib - before_mib - cache_fraction * (gpu_total_mib(gpu) - before_mib)) / (1 - cache_fraction))


@contextmanager
def serving(
    side: str, folder: ModelFolder, work_dir: Path, port: int, gpu: int, cache_fraction: float | None, **extra: str
) -> Iterator[Server]:
    """Run one side: yields a Server and stops it afterwards.

    cache_fraction: share of the remaining memory for KV cache, None for the side's own choice; extra: environment
    variables for lingbi.

    Raises StartError with the end of the server's log, or with the reason why the first question was not answered.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    log_file = work_dir / "log"
    stock_fraction = STOCK_FRACTION if cache_fraction is None else cache_fraction
    if side == "stock":
        command, environment = _stock(folder, work_dir, port, stock_fraction)
    else:
        command, environment = _lingbi(folder, work_dir, port, cache_fraction)
    environment = os.environ | environment | {"CUDA_VISIBLE_DEVICES": str(gpu)} | (extra if side != "stock" else {})
    before_mib, start = gpu_used_mib(gpu), time.monotonic()
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=work_dir, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    path = "/v1/models" if side == "stock" else "/ready"
    try:
        with httpx.Client(timeout=LOOK_TIMEOUT_S, trust_env=False) as client:  # each reads all CA certificates
            answered = wait_until(lambda: process.poll() is not None or _answers(client, url + path), START_TIMEOUT_S)
        if not answered or process.poll() is not None:
            raise StartError(f"{side} did not start; {log_file} ends:\n{_end_of(log_file)}")
        seconds, used_mib = time.monotonic() - start, gpu_used_mib(gpu)
        key = None if side == "stock" else (work_dir / "state" / "api-key").read_text().split()[0]
        # stock calls a model by the name of its template
        target = Target(url, key, folder.template if side == "stock" else folder.served_name)
        if side == "stock":
            gpu_mib, planned_mib = without_cache(used_mib, before_mib, gpu, stock_fraction), None
        else:
            plan = httpx.get(url + path, trust_env=False).json()["gpu"]
            gpu_mib, planned_mib = used_mib - before_mib - plan["cache_mib"], plan["total_mib"]
        fault = ask_once(target).error
        if fault:
            raise StartError(f"{side} did not answer its first picture question: {fault}")
        asked_mib = gpu_mib + gpu_used_mib(gpu) - used_mib
        yield Server(target, seconds, gpu_mib, asked_mib, used_mib - before_mib - gpu_mib, before_mib, planned_mib)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _stock(folder: ModelFolder, work_dir: Path, port: int, cache_fraction: float) -> tuple[list[str], dict[str, str]]:
    """lmdeploy's own server, unpatched, with its defaults; CLIP's config is put where it is found offline."""
    clip = work_dir / CLIP_NAME
    shutil.copytree(CLIP_CONFIG, clip, dirs_exist_ok=True)
    link = folder.link_in(work_dir / "models")
    command = [sys.executable, "-m", "lmdeploy", "serve", "api_server", str(link)]
    command += ["--model-name", folder.template, "--server-name", "127.0.0.1", "--server-port", str(port)]
    command += ["--session-len", str(folder.session_len), "--cache-max-entry-count", str(cache_fraction)]
    return command, {STOCK: "1"}


def _lingbi(
    folder: ModelFolder, work_dir: Path, port: int, cache_fraction: float | None
) -> tuple[list[str], dict[str, str]]:
    """lingbi's worker with its defaults."""
    environment = {
        "LINGBI_MODEL": str(folder.path),
        "LINGBI_PORT": str(port),
        "LINGBI_STATE_DIR": str(work_dir / "state"),
    } | ({"LINGBI_CACHE_FRACTION": str(cache_fraction)} if cache_fraction else {})
    return [sys.executable, "-m", "lingbi.worker"], environment


def _end_of(file: Path, characters: int = 2000) -> str:
    return file.read_text(errors="replace")[-characters:]
