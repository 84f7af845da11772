"""Docker commands for the stack of compose.yaml."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host.env_file import ROOT
from host.errors import StartFailed
from host.machine import run

SERVICES = ("server", "ui", "gateway")


def compose(
    *arguments: str, shown: bool = True, folder: str = str(ROOT), env_file: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run docker compose on the stack. Only .env counts; settings in this shell's environment are ignored."""
    options.update({} if shown else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE})
    return subprocess.run(
        compose_command(*arguments, folder=folder, env_file=env_file),
        text=True,
        cwd=str(ROOT),
        env=clean_environment(),
        **options,
    )


def compose_command(*arguments: str, folder: str = str(ROOT), env_file: Path | None = None) -> list[str]:
    given = [f"--env-file={env_file}"] if env_file else []
    return ["docker", "compose", "--project-directory", folder, *given, *arguments]


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("LINGBI_", "COMPOSE_"))}


def is_running(*services: str) -> bool:
    """Whether any container of the stack, or of these services, is running."""
    return (ROOT / ".env").exists() and bool(compose("ps", "--quiet", *services, shown=False).stdout.strip())


def image(values: dict[str, str], name: str) -> str:
    return f"{values['LINGBI_IMAGE_PREFIX']}{name}:{values['LINGBI_VERSION']}"


def have_images(values: dict[str, str], say: Callable[[str], None]) -> None:
    """Make sure that all images are here: missing ones are pulled from the registry, or built. Raises StartFailed."""
    missing = [name for name in SERVICES if run("docker", "image", "inspect", image(values, name)).returncode]
    for name in missing:
        tag = image(values, name)
        if is_registry(values["LINGBI_IMAGE_PREFIX"]):
            say(f"image   pulling {tag}")
            done = subprocess.run(["docker", "pull", tag])
        else:
            say(f"image   building {tag} (once; the server's takes minutes)")
            done = subprocess.run(build_command(name, tag, values["LINGBI_VERSION"]))
        if done.returncode:
            raise StartFailed(f"{tag} is not available; see the lines above, load a bundle, or use scripts/up --native")


def is_registry(prefix: str) -> bool:
    """Whether images of this prefix come from a registry: its first part is a host, as Docker decides it."""
    first = prefix.split("/")[0]
    return "/" in prefix and ("." in first or ":" in first or first == "localhost")


def build_command(name: str, tag: str, version: str) -> list[str]:
    """The command that builds an image. A CA file and a package index come from the shell's environment."""
    revision = run("git", "-C", str(ROOT), "rev-parse", "HEAD").stdout.strip() or "unknown"
    command = ["docker", "build", "--file", f"docker/{name}/Dockerfile", "--tag", tag]
    command += ["--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision}"]
    if os.environ.get("BUILD_CA_FILE"):
        command += ["--secret", f"id=ca,src={os.environ['BUILD_CA_FILE']}"]
    if os.environ.get("BUILD_INDEX_URL"):
        command += ["--build-arg", f"INDEX_URL={os.environ['BUILD_INDEX_URL']}"]
    return [*command, str(ROOT)]


def is_published(address: str, port: str) -> bool:
    """Whether it is the running gateway that listens there."""
    told = compose("port", "gateway", port, shown=False).stdout.strip()
    return re.sub(r"[\[\]]", "", told) == re.sub(r"[\[\]]", "", f"{address}:{port}")
