"""What this machine offers to containers: engine, Compose, NVIDIA's runtime, GPUs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

OLDEST_ENGINE, OLDEST_COMPOSE = (25, 0), (2, 24)  # for start_interval in health checks; for !reset and !override
# The compute capabilities that the server has code for; a test compares them with the server's own.
OLDEST_CAPABILITY, NEWEST_CAPABILITY = (7, 0), (9, 0)


@dataclass(frozen=True)
class Machine:
    """engine, compose: versions, None if missing; engine_fault: why the engine does not answer."""

    engine: tuple[int, ...] | None
    engine_fault: str
    compose: tuple[int, ...] | None
    has_nvidia_runtime: bool
    gpus: list[str]  # `nvidia-smi -L`'s lines: indices, UUIDs, slices
    has_secrets: bool = False  # whether the operator's key is in a file, as version 0.1.0 made it
    capabilities: tuple[tuple[int, ...] | None, ...] = ()  # compute capability of each card, None where it is not known


def look() -> Machine:
    """Inspect the machine without changing anything."""
    if not shutil.which("docker"):
        return Machine(None, "there is no `docker` command here", None, False, find_gpus())
    info = run("docker", "info", "--format", "{{json .}}")
    facts = json.loads(info.stdout) if info.returncode == 0 and info.stdout.strip() else {}
    version = numbers(facts.get("ServerVersion", ""))
    fault = "" if version else (info.stderr.strip() or "\n".join(facts.get("ServerErrors", []))).split("\n")[-1]
    compose = run("docker", "compose", "version", "--short")
    found = numbers(compose.stdout) if compose.returncode == 0 else None
    return Machine(version, fault, found, has_nvidia(facts), find_gpus(), capabilities=find_capabilities())


def has_nvidia(info: dict[str, Any]) -> bool:
    """Whether the engine can give GPUs to containers, judged by `docker info` or by the hook on the PATH."""
    devices = " ".join(map(str, info.get("DiscoveredDevices") or [])) + " ".join(info.get("CDISpecDirs") or [])
    return (
        "nvidia" in (info.get("Runtimes") or {})
        or "nvidia.com/gpu" in devices
        or bool(shutil.which("nvidia-container-runtime-hook"))
    )


def find_gpus() -> list[str]:
    """The GPUs and slices that NVIDIA's driver lists, one line each."""
    if not shutil.which("nvidia-smi"):
        return []
    done = run("nvidia-smi", "-L")
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def find_capabilities() -> tuple[tuple[int, ...] | None, ...]:
    """The compute capability of each card by its index; none at all where the driver does not tell (before 510)."""
    if not shutil.which("nvidia-smi"):
        return ()
    done = run("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    return tuple(numbers(line) for line in done.stdout.splitlines()) if done.returncode == 0 else ()


def numbers(version: str) -> tuple[int, ...] | None:
    """A version as numbers, or None."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version.strip())
    return tuple(int(part) for part in match.groups() if part) if match else None


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program and capture its output; status 127 if it does not exist, as in a shell."""
    try:
        return subprocess.run(command, capture_output=True, text=True, **options)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"there is no `{command[0]}` command here")
