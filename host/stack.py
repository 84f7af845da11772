"""Docker commands for the stack of compose.yaml."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from host.env_file import ROOT
from host.errors import StartFailed
from host.images import building, disk, leftovers, mirrors
from host.machine import run

SERVICES = ("server", "ui", "gateway")
LOGS = ROOT / ".lingbi/logs"
SHOW_RECORD = 'cat "$LINGBI_STATE_DIR/run/server.json"'  # of a start, in the server's container


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
    return bool(compose("ps", "--quiet", *services, shown=False).stdout.strip())


def folders(project: str, *options: str) -> list[str]:
    """The folders from which the running containers of a project were started. options: of `docker ps`, as --all."""
    label = "com.docker.compose.project"
    shown = f'{{{{.Label "{label}.working_dir"}}}}'
    return run("docker", "ps", *options, f"--filter=label={label}={project}", "--format", shown).stdout.split("\n")[:-1]


def is_set_up() -> bool:
    """Whether there are containers of this folder's stack, running or not, whoever made them."""
    return bool(compose("ps", "--all", "--quiet", shown=False).stdout.strip())


def show_key() -> str:
    """The operator's key, from the running server. Raises StartFailed with what the server says."""
    done = compose("exec", "--no-TTY", "server", "lingbi", "key", "show", shown=False)
    if done.returncode:
        raise StartFailed(f"the server shows no key: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def record() -> dict[str, Any]:
    """What the running server wrote down of its start: "ports" of its workers, and "models" where there are several, by their
    names in the API in the order of .env. Empty where there is none."""
    done = compose("exec", "--no-TTY", "server", "sh", "-c", SHOW_RECORD, shown=False)
    found: dict[str, Any] = json.loads(done.stdout or "{}") if not done.returncode else {}
    return found


def message_of(line: str) -> str:
    """What a line of a container's log says: the message where it is JSON, as the server writes it, else the line."""
    line = line.strip().replace("error: ", "", 1)
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return line


def image(values: dict[str, str], name: str) -> str:
    return f"{values['LINGBI_IMAGE_PREFIX']}{name}:{values['LINGBI_VERSION']}"


def have_images(values: dict[str, str], say: Callable[[str], None], is_verbose: bool = False) -> None:
    """Make sure that all images are here: missing ones are pulled from the registry, or built, and older ones removed.

    Raises Refusal where there is too little disk for them, StartFailed where one does not come.
    """
    missing = [name for name in SERVICES if run("docker", "image", "inspect", image(values, name)).returncode]
    is_pulled = is_registry(values["LINGBI_IMAGE_PREFIX"])
    begun = datetime.now(timezone.utc)
    if missing:
        disk.check(missing, is_pulled, *disk.look())
    for number, name in enumerate(missing, 1):
        tag = image(values, name)
        what = f"{tag} ({number} of {len(missing)})"
        if is_pulled:
            say(f"image   pulling {what}")
            shown(["docker", "pull", tag], what)
        elif is_verbose:
            say(f"image   building {what}")
            shown(build_command(name, tag, values), what)
        else:
            building.build(build_command(name, tag, values), what, LOGS / f"build-{name}.log", say)
    if missing:
        leftovers.clear(values["LINGBI_IMAGE_PREFIX"], SERVICES, values["LINGBI_VERSION"], begun, say)


def shown(command: list[str], what: str) -> None:
    """Run a command that shows all that it does. Raises StartFailed."""
    if subprocess.run(command).returncode:
        raise StartFailed(f"{what} is not available; see the lines above, load a bundle, or use scripts/up --native")


def is_registry(prefix: str) -> bool:
    """Whether images of this prefix come from a registry: its first part is a host, as Docker decides it."""
    first = prefix.split("/")[0]
    return "/" in prefix and ("." in first or ":" in first or first == "localhost")


def build_command(name: str, tag: str, values: dict[str, str]) -> list[str]:
    """The command that builds an image, with the mirrors of .env or of the shell's environment."""
    revision = run("git", "-C", str(ROOT), "rev-parse", "HEAD").stdout.strip() or "unknown"
    dockerfile = f"docker/{name}/Dockerfile"
    command = ["docker", "build", "--progress=plain", "--file", dockerfile, "--tag", tag]
    command += ["--build-arg", f"VERSION={values['LINGBI_VERSION']}", "--build-arg", f"REVISION={revision}"]
    text = (ROOT / dockerfile).read_text(encoding="utf-8")
    return [*command, *mirrors.build_options(text, values, os.environ), str(ROOT)]


def is_published(address: str, port: str) -> bool:
    """Whether it is the running gateway that listens there."""
    told = compose("port", "gateway", port, shown=False).stdout.strip()
    return re.sub(r"[\[\]]", "", told) == re.sub(r"[\[\]]", "", f"{address}:{port}")
