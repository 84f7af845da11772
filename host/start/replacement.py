"""Fetches and proves the weights of a new .env beside the stack that runs, which goes on serving meanwhile."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host import stack
from host.env_file import ROOT
from host.errors import Refusal
from host.machine import run

SERVICE = "weights"
ENDED_BY_SIGNAL = (130, 143)

Configuration = dict[str, Any]  # the output of `docker compose config`


def bring_weights(found: Configuration, say: Callable[[str], None]) -> None:
    """Run the service that fetches, as the new .env has it, to its end. Raises Refusal if the weights are not right then.

    Whatever ends it, nothing that runs is touched: it uses the stack's networks and volumes as they are.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.json")
        file.touch(mode=0o600)
        file.write_text(text_of(alone(found, names_here())), encoding="utf-8")
        status, last = follow(command(found["name"], file), say)
    if status in ENDED_BY_SIGNAL:
        raise KeyboardInterrupt
    if status:
        raise Refusal(f"{last or 'the weights did not come'}; nothing was changed, and what ran goes on")


def command(project: str, file: Path) -> list[str]:
    """docker compose's command line; its own progress is hidden, so that what is left is the service's."""
    compose = stack.compose_command("--progress=quiet", f"--project-name={project}", f"--file={file}")
    return [*compose, "run", "--rm", "--no-deps", "--no-TTY", SERVICE]


def names_here() -> set[str]:
    """The names of Docker's networks and volumes."""
    listed = [run("docker", kind, "ls", "--format={{.Name}}").stdout for kind in ("network", "volume")]
    return {name for names in listed for name in names.split()}


def alone(found: Configuration, here: set[str]) -> Configuration:
    """A configuration with this service alone, which may run once. here: names of networks and volumes that exist."""
    service = {**found["services"][SERVICE], "restart": "no"}
    for name in ("depends_on", "build"):  # its image is here; a build would want secrets and other services
        service.pop(name, None)
    networks = {name: as_it_is(found["networks"][name], here) for name in service.get("networks") or {}}
    mounted = [mount["source"] for mount in service.get("volumes", []) if mount["type"] == "volume"]
    volumes = {name: as_it_is(found["volumes"][name], here) for name in mounted}
    secrets = {item["source"]: found["secrets"][item["source"]] for item in service.get("secrets", [])}
    parts = {"networks": networks, "volumes": volumes, "secrets": secrets}
    return {
        "name": found["name"],
        "services": {SERVICE: service},
        **{name: part for name, part in parts.items() if part},
    }


def as_it_is(thing: dict[str, Any], here: set[str]) -> dict[str, Any]:
    """A network or volume for Compose: one that exists is taken as it is, though it may be configured otherwise now."""
    return {"external": True, "name": thing["name"]} if thing["name"] in here else thing


def text_of(found: Configuration) -> str:
    """The text for Compose, which takes a $ for a variable unless it is doubled."""
    return json.dumps(found).replace("$", "$$")


def follow(arguments: list[str], say: Callable[[str], None]) -> tuple[int, str]:
    """Run a program and pass on what it says as it comes; returns its status and its last line. It never outlives this."""
    last = ""
    process = subprocess.Popen(
        arguments,
        cwd=str(ROOT),
        env={**stack.clean_environment(), "COMPOSE_IGNORE_ORPHANS": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in filter(str.strip, process.stdout or ()):
            last = stack.message_of(line)
            say(f"weights {last}")
        return process.wait(), last
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
