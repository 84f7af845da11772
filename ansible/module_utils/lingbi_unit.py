"""A unit of lingbi on a host: a folder with what is staged, what is live and what was before, and its record.

next/      what the next start will use, written by unit_files
live/      what Docker Compose runs; containers refer to this path
previous/  what ran well before live/, and is put back when a start fails
running.json   what was last proven to run: version, images, digests of its files
record.jsonl   every event, one on each line
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time

from ansible.module_utils.lingbi_docker import LIVE, Failed

NEXT, PREVIOUS = "next", "previous"
RUNNING, RECORD = "running.json", "record.jsonl"
HISTORY = 200
POLL_S = 0.2
COPY, ASIDE = ".copy", ".aside"


def digests(folder):
    """{path: SHA-256} of the files below a folder; empty if there is no folder."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = hashlib.sha256(file.read()).hexdigest()
    return found


def read_running(directory):
    """The content of running.json; {} if nothing was proven to run."""
    path = os.path.join(directory, RUNNING)
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def write_atomically(path, text, mode=0o600):
    """Write a file so that it is there as a whole or not at all."""
    temporary = path + ".new"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def lock_of(path, wait_s):
    """Hold a file's lock. Raises Failed if another process holds it for longer than wait_s."""
    deadline = time.monotonic() + wait_s
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failed(f"another process on this host has held {path} for {wait_s} s") from None
                time.sleep(POLL_S)
        yield


@contextlib.contextmanager
def alone(directory, wait_s):
    """Work on a unit alone, since a module of a killed controller may still be working there. Raises Failed."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)  # it may have been there, open to all; copies of secrets are made in it
    with lock_of(os.path.join(directory, ".lock"), wait_s):
        for name in (LIVE, PREVIOUS):
            settle(os.path.join(directory, name))
        yield


def replace_folder(source, target):
    """Make target a copy of source; settle() finds the old or the new folder as a whole at every moment."""
    settle(target)
    shutil.copytree(source, target + COPY, symlinks=True, copy_function=copy_owned)
    if os.path.isdir(target):
        os.rename(target, target + ASIDE)
    os.rename(target + COPY, target)
    shutil.rmtree(target + ASIDE, ignore_errors=True)


def settle(target):
    """Clean up after a replace_folder that was killed: the old folder stays unless the new one was in place."""
    if os.path.isdir(target + ASIDE) and not os.path.isdir(target):
        os.rename(target + ASIDE, target)
    for left in (target + COPY, target + ASIDE):
        shutil.rmtree(left, ignore_errors=True)


def copy_owned(source, target):
    """Copy a file with its owner, because secrets belong to the user in the container; the target."""
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
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with open(os.path.join(directory, RECORD), "a") as file:
        file.write(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | entry) + "\n")


def place(directory):
    """Make next/ live, and keep what ran well as previous/."""
    live = os.path.join(directory, LIVE)
    running = read_running(directory)
    if running and digests(live) == running["files"]:
        replace_folder(live, os.path.join(directory, PREVIOUS))
    replace_folder(os.path.join(directory, NEXT), live)


def put_back(directory):
    """Make live what was last proven to run; whether anything was."""
    running = read_running(directory)
    if running and digests(os.path.join(directory, LIVE)) != running["files"]:
        replace_folder(os.path.join(directory, PREVIOUS), os.path.join(directory, LIVE))
    return bool(running)


def confirm(directory, entry):
    """Record what is live as proven. Killed in between, the next run starts it anew: running.json does not have it yet."""
    note(directory, entry)
    running = entry | {"files": digests(os.path.join(directory, LIVE))}
    write_atomically(os.path.join(directory, RUNNING), json.dumps(running, indent=1) + "\n")
