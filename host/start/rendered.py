"""Has Compose and the images check a new .env before it is put in place."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from host import stack
from host.env_file import ROOT
from host.errors import Refusal
from host.machine import run

HELP = re.compile("(Run|See) 'docker run --help'")
Service = dict[str, Any]  # a service in the output of `docker compose config`
RENDERED = "gateway"  # the volume with what the running gateway reads again at each reload
ASK_PAGE = """\
import sys
from lingbi_ui.settings import ConfigurationError, load_settings
try:
    load_settings()
except ConfigurationError as error:
    sys.exit(f"error: {error}")
"""


def configuration(text: str) -> dict[str, Any]:
    """All that Compose renders with this text as .env. Raises Refusal with Compose's error message."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, ".env")
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
        done = stack.compose("config", "--format", "json", folder=folder, env_file=file, shown=False)
    if done.returncode:
        raise Refusal(f"Compose refuses these settings: {last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout.replace(folder, str(ROOT)).replace("$$", "$"))
    return found


def ask_all(found: dict[str, Service], project: str, is_running: bool) -> None:
    """Have each image check its settings; the server also checks model and memory. Raises Refusal."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (options, asked) in questions(is_running).items():
            file = Path(folder, name)
            file.touch(mode=0o600)
            file.write_text(env_text(environment(found, name)), encoding="utf-8")
            command = [*options_of(found[name], project), *options, f"--env-file={file}", found[name]["image"], *asked]
            ask(command)


def questions(is_running: bool) -> dict[str, tuple[list[str], list[str]]]:
    """{service: (options of docker run, command of the image)}."""
    return {
        "server": ([], ["doctor", *(["--replacing"] if is_running else [])]),
        "ui": (["--entrypoint=/opt/venv/bin/python"], ["-c", ASK_PAGE]),
        "gateway": ([], ["render"]),
    }


def options_of(service: Service, project: str) -> list[str]:
    """`docker run` with a service's mounts, memory and GPUs; only the gateway has a network, to resolve names."""
    network = "bridge" if "edge" in service.get("networks", {}) else "none"
    command = ["docker", "run", "--rm", f"--network={network}", "--read-only", "--cap-drop=ALL", "--tmpfs=/tmp"]
    for mount in service.get("volumes", []):
        command += mount_options(mount, project)
    memory = int(service.get("mem_limit", 0))
    command += [f"--memory={memory}"] if memory else []
    return command + gpu_options(service)


def mount_options(mount: dict[str, Any], project: str) -> list[str]:
    """The options for a mount. A volume that does not exist yet becomes an empty tmpfs owned by the image's user, and so does
    the one that the gateway would render into, because another one runs with what is there."""
    target, is_read_only = mount["target"], ":ro" if mount.get("read_only") else ""
    if mount["type"] == "bind":
        return [f"--volume={mount['source']}:{target}{is_read_only}"]
    volume = f"{project}_{mount['source']}"
    if mount["source"] != RENDERED and run("docker", "volume", "inspect", volume).returncode == 0:
        return [f"--volume={volume}:{target}{is_read_only}"]
    return [f"--tmpfs={target}:uid=10001,gid=10001"]


def gpu_options(service: Service) -> list[str]:
    """docker run's options for a service's GPUs."""
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    if not devices:
        return []
    ids = ",".join(devices[0].get("device_ids", []))
    count = devices[0].get("count", -1)
    return ["--gpus", f'"device={ids}"' if ids else ("all" if count == -1 else str(count))]


def environment(found: dict[str, Service], name: str) -> dict[str, str]:
    """A service's environment; the server's has LINGBI_FETCH of `weights`, which runs before it."""
    values = {key: value for key, value in (found[name].get("environment") or {}).items() if value is not None}
    if name == "server" and "weights" in found:
        values.pop("LINGBI_FETCH", None)
        fetch = (found["weights"].get("environment") or {}).get("LINGBI_FETCH")
        values.update({"LINGBI_FETCH": fetch} if fetch else {})
    return values


def env_text(values: dict[str, str]) -> str:
    """The text for `docker run --env-file`, which takes everything after the first = as the value."""
    return "".join(f"{name}={value}\n" for name, value in values.items())


def ask(command: list[str]) -> None:
    """Raise Refusal with the faults that an image reports."""
    done = run(*command)
    faults = [line.split(None, 2)[2] for line in done.stdout.splitlines() if line.startswith("FAIL")]
    if done.returncode:
        raise Refusal("; ".join(dict.fromkeys(faults)) or last_line(done.stderr or done.stdout))


def last_line(said: str) -> str:
    """The last line that a program printed, which gives the reason; docker's word of its own help comes after that."""
    lines = [line for line in said.strip().splitlines() if line.strip() and not HELP.match(line)]
    return (lines[-1].strip() if lines else "it said nothing").replace("error: ", "", 1)[-800:]


def project_of(values: dict[str, str]) -> str:
    return values.get("COMPOSE_PROJECT_NAME") or "lingbi"
