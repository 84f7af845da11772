"""Disk: what getting the images takes, and whether the engine's folder has room for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from host.errors import Refusal
from host.machine import run

# GB that an image takes while it comes here. Built: with the layers and packages that the build's cache keeps, measured as
# docs/containers.md says (18 GB in all). Pulled: its unpacked layers and their archives.
BUILT_GB = {"server": 16.0, "ui": 1.6, "gateway": 0.4}
PULLED_GB = {"server": 9.5, "ui": 0.8, "gateway": 0.4}


def needed_gb(names: list[str], is_pulled: bool) -> float:
    """What getting these images takes at most."""
    table = PULLED_GB if is_pulled else BUILT_GB
    return sum(table[name] for name in names)


def check(names: list[str], is_pulled: bool, free_gb: float | None, folder: str) -> None:
    """Raise Refusal if there is too little room for these images; free_gb: None where the folder cannot be seen."""
    needed = needed_gb(names, is_pulled)
    if free_gb is None or free_gb >= needed:
        return
    what, how = ", ".join(names), "pulling" if is_pulled else "building"
    raise Refusal(
        f"{how} {what} takes up to {needed:.0f} GB of disk, and {free_gb:.1f} GB are free in Docker's folder {folder}; "
        "free some (`docker system df` says what Docker holds, `docker builder prune` removes caches of builds), or give "
        "Docker another folder (data-root)"
    )


def look() -> tuple[float | None, str]:
    """(free GB, folder) of the engine's storage; None where the engine is not on this machine or hides it."""
    folder = run("docker", "info", "--format", "{{.DockerRootDir}}").stdout.strip()
    is_here = os.environ.get("DOCKER_HOST", "unix:").startswith("unix:") and bool(folder) and Path(folder).is_dir()
    return (shutil.disk_usage(folder).free / 1e9 if is_here else None), folder
