#!/usr/bin/python
"""Stages the files of a unit, and finds out whether the unit has to start anew with them."""

DOCUMENTATION = r"""
module: unit_files
short_description: Stage a unit's files, and find out whether it has to roll
description:
  - Writes exactly the given files into the unit's next/ folder after Docker Compose has accepted them.
  - Compares the files and the containers with what was last proven to run. Touches nothing that runs.
options:
  directory: {type: path, required: true, description: folder of the unit}
  files: {type: dict, required: true, description: 'paths with {content, mode, owner}'}
  services: {type: list, elements: str, required: true, description: services that must run}
author: lingbi
"""
RETURN = r"""
needs: {type: bool, returned: always, description: whether the unit has to start anew}
why: {type: str, returned: always, description: the reason, for people}
running: {type: dict, returned: always, description: what was last proven to run}
history: {type: list, returned: always, description: the record's last entries}
"""

import hashlib
import os
import shutil

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule

CHECK = "checking"
LOCK_WAIT_S = 900  # a module whose controller was killed may still be starting the unit


def wanted_digests(files):
    """{path: SHA-256} of the given files; pure."""
    return {path: hashlib.sha256(item["content"].encode()).hexdigest() for path, item in files.items()}


def reason(running, live, wanted, found, services):
    """Why the unit has to start anew; empty if it does not. Pure.

    running: what was last proven; live, wanted: digests of what Compose runs, and of what is to run.
    """
    if not running:
        return "nothing was started here yet"
    if live != running["files"]:
        return "a rollout ended before what runs here was tested"
    differ = sorted(path for path in {*running["files"], *wanted} if running["files"].get(path) != wanted.get(path))
    if differ:
        return f"changed: {', '.join(differ)}"
    ill = [service for service in services if not docker.is_well(found.get(service))]
    return f"{', '.join(ill)}: not running, or not healthy" if ill else ""


def write(folder, files):
    """Write the files into a new folder."""
    os.makedirs(folder, mode=0o700)
    for path, item in files.items():
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        mode = int(str(item["mode"]), 8)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(item["content"])
        os.chmod(target, mode)
        os.chown(target, item.get("owner", 0), item.get("owner", 0))


def stage(module, directory, files):
    """Put the files into next/; fail with Compose's message if it refuses them."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    checked = os.path.join(directory, CHECK)
    shutil.rmtree(checked, ignore_errors=True)
    write(checked, files)
    if shutil.which("docker"):
        said = docker.compose(directory, "config", "--quiet", folder=CHECK)
        if said.returncode:
            shutil.rmtree(checked)
            module.fail_json(msg=f"Docker Compose refused the files for {directory}: {said.stderr.strip()[-800:]}")
    shutil.rmtree(os.path.join(directory, unit.NEXT), ignore_errors=True)
    os.rename(checked, os.path.join(directory, unit.NEXT))


def compare(module, directory):
    """Stage what differs; the module's result."""
    files = module.params["files"]
    wanted = wanted_digests(files)
    changed = unit.digests(os.path.join(directory, unit.NEXT)) != wanted
    if changed and not module.check_mode:
        stage(module, directory, files)
    running = unit.read_running(directory)
    found = docker.containers(directory) if shutil.which("docker") else {}
    live = unit.digests(os.path.join(directory, docker.LIVE))
    why = reason(running, live, wanted, found, module.params["services"])
    return {
        "changed": changed,
        "needs": bool(why),
        "why": why,
        "running": running,
        "history": unit.history(directory),
        "containers": found,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True, "no_log": True},
            "services": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    directory = module.params["directory"]
    try:
        if module.check_mode:
            module.exit_json(**compare(module, directory))
        with unit.alone(directory, LOCK_WAIT_S):
            module.exit_json(**compare(module, directory))
    except docker.Failed as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
