"""Commands to Docker for the stack beside compose.yaml."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.machine import run

SERVICES = ("server", "ui", "gateway")


def compose(*arguments: str, shown: bool = True) -> subprocess.CompletedProcess:
    """Run docker compose on the stack. What stands in this shell's environment does not count: .env alone does."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LINGBI_", "COMPOSE_"))}
    options = {} if shown else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["docker", "compose", "--project-directory", str(ROOT), *arguments]
    return subprocess.run(command, text=True, cwd=str(ROOT), env=environment, **options)


def is_running() -> bool:
    """Whether any container of the stack runs."""
    return (ROOT / ".env").exists() and bool(compose("ps", "--quiet", shown=False).stdout.strip())


def image(values: dict[str, str], name: str) -> str:
    return f"{values['LINGBI_IMAGE_PREFIX']}{name}:{values['LINGBI_VERSION']}"


def have_images(values: dict[str, str], say) -> None:
    """Have all images here: those that are, else from the registry of the prefix, else built. Raises StartFailed."""
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
            raise StartFailed(f"{tag} could not be had; see the lines above, load a bundle, or use scripts/up --native")


def is_registry(prefix: str) -> bool:
    """Whether images of this prefix come from a registry: its first part is a host, as Docker decides it."""
    first = prefix.split("/")[0]
    return "/" in prefix and ("." in first or ":" in first or first == "localhost")


def build_command(name: str, tag: str, version: str) -> list[str]:
    """The command that builds an image. LINGBI's own certificates and mirror come from the shell's environment."""
    revision = run("git", "-C", str(ROOT), "rev-parse", "HEAD").stdout.strip() or "unknown"
    command = ["docker", "build", "--file", f"docker/{name}/Dockerfile", "--tag", tag]
    command += ["--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision}"]
    if os.environ.get("BUILD_CA_FILE"):
        command += ["--secret", f"id=ca,src={os.environ['BUILD_CA_FILE']}"]
    if os.environ.get("BUILD_INDEX_URL"):
        command += ["--build-arg", f"INDEX_URL={os.environ['BUILD_INDEX_URL']}"]
    return [*command, str(ROOT)]


def doctor_command(values: dict[str, str], env_file: Path, gpus: list[str]) -> list[str]:
    """The command that has the server's image judge settings, model and memory before anything is started."""
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp",
        "--tmpfs=/var/lib/lingbi:uid=10001,gid=10001",
    ]
    command += [f"--env-file={env_file}", *gpus]
    if values.get("LINGBI_MODEL_FOLDER"):
        command += [f"--volume={values['LINGBI_MODEL_FOLDER']}:/model:ro", "--env=LINGBI_MODEL=/model"]
    else:
        project = values.get("COMPOSE_PROJECT_NAME", "lingbi")
        command += (
            [f"--volume={project}_weights:/models"]
            if has_volume(f"{project}_weights")
            else ["--tmpfs=/models:uid=10001,gid=10001"]
        )
    return [*command, image(values, "server"), "doctor"]


def has_volume(name: str) -> bool:
    return run("docker", "volume", "inspect", name).returncode == 0


def ask_doctor(command: list[str]) -> None:
    """Raise Refusal with what the doctor found wrong."""
    done = run(*command)
    faults = [line.split(None, 2)[2] for line in done.stdout.splitlines() if line.startswith("FAIL")]
    if done.returncode:
        raise Refusal("; ".join(faults) or (done.stderr or done.stdout).strip()[-800:])


def log_tail() -> str:
    """The end of the logs of what did not come up."""
    return compose("logs", "--no-color", "--tail=15", "weights", "server", shown=False).stdout
