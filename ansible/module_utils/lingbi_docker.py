"""Docker and Compose on a host. Every call ends within its bound."""

import os
import re
import subprocess

LIVE = "live"
COMMAND_S = 60
MARGIN_S = 30  # for Docker's own work, in addition to a wait that Docker bounds itself
LOG_LINES = 25
ILL_STOP_S = 10
ROW = '{{.ID}}\t{{.State}}\t{{.Status}}\t{{.Label "com.docker.compose.service"}}'
ONCE = "com.docker.compose.oneoff=False"  # not those of `docker compose run`


class Failed(Exception):
    """An action did not succeed; the message says what was seen."""


def run(*command, timeout_s=COMMAND_S, cwd=None):
    """The CompletedProcess of a command. Raises Failed if it is not installed or does not end in time."""
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command[:3])} did not end within {timeout_s} s") from None
    except FileNotFoundError as error:
        raise Failed(f"{' '.join(command[:3])}: {error.filename} is not installed") from None


def said(*command, timeout_s=COMMAND_S):
    """A command's output. Raises Failed with its error output."""
    done = run(*command, timeout_s=timeout_s)
    if done.returncode:
        raise Failed(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout.strip()


def compose(directory, *arguments, folder=LIVE, timeout_s=COMMAND_S):
    """Run docker compose in a folder of the unit; the CompletedProcess."""
    return run("docker", "compose", *arguments, cwd=os.path.join(directory, folder), timeout_s=timeout_s)


def project(directory):
    """The unit's name for Compose, as roles/unit/templates/env.j2 gives it."""
    return f"lingbi-{os.path.basename(directory.rstrip('/'))}"


def containers(directory):
    """{service: {"state", "health", "id"}} of the unit's containers, whatever its folders hold. Raises Failed."""
    filters = (f"label=com.docker.compose.project={project(directory)}", f"label={ONCE}")
    options = [part for item in filters for part in ("--filter", item)]
    found = {}
    for line in said("docker", "ps", "--all", "--no-trunc", *options, "--format", ROW).splitlines():
        row = described(line)
        if (
            found.get(row["service"], {}).get("state") != "running"
        ):  # of two while one replaces the other, the running one
            found[row["service"]] = {name: row[name] for name in ("id", "state", "health")}
    return found


def described(line):
    """The fields of a line of `docker ps`, by name; pure."""
    container, state, status, service = line.split("\t")
    health = re.search(r"\((?:health: )?(healthy|unhealthy|starting)\)", status)
    return {"id": container, "state": state, "health": health[1] if health else "", "service": service}


def is_well(container):
    """Whether a container runs and, if it has a health check, is healthy."""
    return is_running(container) and container["health"] in ("", "healthy")


def is_running(container):
    """Whether a container runs, healthy or not."""
    return bool(container) and container["state"] == "running"


def halt(directory, services, wait_s):
    """Stop the services; each has wait_s seconds after its stop signal. Raises Failed."""
    found = containers(directory)
    for service in services:
        if service in found and found[service]["state"] not in ("exited", "created", "dead"):
            said("docker", "stop", "--time", str(wait_s), found[service]["id"], timeout_s=wait_s + MARGIN_S)


def bring_up(directory, services, wait_s):
    """Start these services of live/ without their dependencies, and wait until they are healthy. Raises Failed.

    A container that runs unhealthy is restarted: Compose would leave it as it is, and fail.
    """
    found = containers(directory)
    halt(directory, [name for name in services if found.get(name, {}).get("health") == "unhealthy"], ILL_STOP_S)
    arguments = [
        "up",
        "--detach",
        "--no-build",
        "--no-deps",
        "--pull",
        "never",
        "--wait",
        "--wait-timeout",
        str(wait_s),
    ]
    done = compose(directory, *arguments, *services, timeout_s=wait_s + MARGIN_S)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["Compose said nothing"])[-1]
        raise Failed(f"the containers did not become healthy: {last}")


def take_down(directory, *options, timeout_s):
    """Remove the unit's containers and networks. Raises Failed."""
    if os.path.isdir(os.path.join(directory, LIVE)):
        done = compose(directory, "down", "--remove-orphans", *options, timeout_s=timeout_s)
        if done.returncode:
            raise Failed(f"docker compose down in {directory}: {done.stderr.strip()[-300:]}")


def remove_volumes(directory, keep=()):
    """Remove the unit's volumes except for those to keep; whether there were any. Raises Failed."""
    listed = said(
        "docker", "volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project(directory)}"
    )
    kept = {f"{project(directory)}_{name}" for name in keep}
    removed = [name for name in listed.split() if name not in kept]
    if removed:
        said("docker", "volume", "rm", *removed)
    return bool(removed)


def log_end(directory):
    """The last lines of the containers' logs; none if Docker does not return them."""
    try:
        done = compose(directory, "logs", "--no-color", "--tail", str(LOG_LINES))
    except (Failed, OSError):
        return []
    return done.stdout.splitlines()[-2 * LOG_LINES :]
