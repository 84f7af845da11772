"""A unit of lingbi on a host: a folder with what is staged, what is live and what was before, and its record.

next/      what the next start will use, written by unit_files
live/      what Docker Compose runs from; containers refer to this path
previous/  what ran well before live/, put back when a start fails
running.json   what was last proven to run: version, images, digests of its files
record.jsonl   every event, one a line
"""

import hashlib
import json
import os
import shutil
import subprocess
import time

NEXT, LIVE, PREVIOUS = "next", "live", "previous"
RUNNING, RECORD = "running.json", "record.jsonl"
HISTORY = 200


def digests(folder):
    """{path: SHA-256} of the files below a folder; empty where it is not there."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = hashlib.sha256(file.read()).hexdigest()
    return found


def read_running(directory):
    """running.json, or {} where nothing was proven to run."""
    path = os.path.join(directory, RUNNING)
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def write_atomically(path, text, mode=0o600):
    """Write a file so that it is there whole or not at all."""
    temporary = path + ".new"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def replace_folder(source, target):
    """Have target be a copy of source."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, copy_function=copy_owned)


def copy_owned(source, target):
    """A copy with the file's owner: secrets belong to the user in the container."""
    shutil.copy2(source, target)
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    return target


def history(directory):
    """The last entries of the record, oldest first."""
    path = os.path.join(directory, RECORD)
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file.readlines()[-HISTORY:]]


def note(directory, entry):
    """Append an entry to the record."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, RECORD), "a") as file:
        file.write(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | entry) + "\n")


def compose(directory, *arguments, folder=LIVE, timeout_s=None):
    """Run docker compose in the unit; the CompletedProcess. Raises subprocess.TimeoutExpired."""
    return subprocess.run(
        ["docker", "compose", *arguments],
        cwd=os.path.join(directory, folder),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def containers(directory):
    """{service: {"state", "health", "image"}} of the unit's containers."""
    if not os.path.isdir(os.path.join(directory, LIVE)):
        return {}
    listed = compose(directory, "ps", "--all", "--format", "json", timeout_s=60)
    if listed.returncode:
        raise RuntimeError(f"docker compose ps in {directory}: {listed.stderr.strip()[-300:]}")
    rows = [json.loads(line) for line in listed.stdout.splitlines() if line.strip()]
    return {row["Service"]: {"state": row["State"], "health": row["Health"], "id": row["ID"]} for row in rows}


def is_well(container):
    """Whether a container runs and, where it has a health check, is healthy."""
    return bool(container) and container["state"] == "running" and container["health"] in ("", "healthy")


class Failed(Exception):
    """An action did not succeed; says what was seen."""


MARGIN_S = 30  # for Compose's own work around a wait that it bounds itself
LOG_LINES = 25


def place(directory):
    """Put next/ in place, and keep what ran well as previous/."""
    live = os.path.join(directory, LIVE)
    running = read_running(directory)
    if running and digests(live) == running["files"]:
        replace_folder(live, os.path.join(directory, PREVIOUS))
    replace_folder(os.path.join(directory, NEXT), live)


def put_back(directory):
    """Have live/ be what was last proven to run; whether there was such."""
    running = read_running(directory)
    if running and digests(os.path.join(directory, LIVE)) != running["files"]:
        replace_folder(os.path.join(directory, PREVIOUS), os.path.join(directory, LIVE))
    return bool(running)


def bring_up(directory, services, wait_s, no_deps=False):
    """Start the services of live/ and wait until they are healthy. Raises Failed."""
    arguments = ["up", "--detach", "--no-build", "--pull", "never", "--wait", "--wait-timeout", str(wait_s)]
    arguments += ["--no-deps"] if no_deps else []
    try:
        done = compose(directory, *arguments, *services, timeout_s=wait_s + MARGIN_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"the containers were not ready within {wait_s} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["Compose said nothing"])[-1]
        raise Failed(f"the containers did not get ready: {last}")


def halt(directory, services, wait_s):
    """Stop the services; each gets its stop signal and so many seconds. Raises Failed."""
    if os.path.isdir(os.path.join(directory, LIVE)):
        done = compose(directory, "stop", "--timeout", str(wait_s), *services, timeout_s=wait_s + MARGIN_S)
        if done.returncode:
            raise Failed(f"the stop failed: {done.stderr.strip()[-300:]}")


def log_end(directory):
    """The last lines of the unit's containers."""
    said = compose(directory, "logs", "--no-color", "--tail", str(LOG_LINES), timeout_s=60)
    return said.stdout.splitlines()[-2 * LOG_LINES :]
