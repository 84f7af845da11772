#!/usr/bin/python
"""Starts, restores, records or removes a unit. Each action ends within its bound."""

DOCUMENTATION = r"""
module: unit_run
short_description: Start, restore or remove a unit, or record what became of it
options:
  action: {type: str, required: true, choices: [start, restore, confirm, note, remove], description: what to do}
  directory: {type: path, required: true, description: folder of the unit}
  services: {type: list, elements: str, default: [], description: services of the unit}
  stop_wait_s: {type: int, default: 75, description: longest wait for a container to stop}
  ready_wait_s: {type: int, default: 1800, description: longest wait for healthy containers}
  entry: {type: dict, default: {}, description: what to record}
  keep: {type: list, elements: str, default: [], description: 'volumes that `remove` leaves'}
author: lingbi
"""
RETURN = r"""
seconds: {type: float, returned: always, description: how long the action took}
is_restored: {type: bool, returned: after restore, description: whether there was a version to go back to}
log: {type: list, returned: when a start failed, description: the last lines of the failing containers}
"""

import os
import shutil
import time

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule


def restore(directory, services, params):
    """Start what ran before; if nothing did, leave the unit stopped. Whether something did. Raises Failed."""
    if not unit.put_back(directory):
        docker.take_down(directory, timeout_s=params["stop_wait_s"] + docker.MARGIN_S)
        return False
    docker.bring_up(directory, services, params["ready_wait_s"])
    return True


def remove(directory, keep, stop_wait_s):
    """Remove the unit except for the volumes to keep; whether there was anything to remove. Raises Failed."""
    is_there = os.path.isdir(directory)
    if is_there:
        with unit.alone(directory, stop_wait_s):
            docker.take_down(directory, timeout_s=stop_wait_s + docker.MARGIN_S)
        shutil.rmtree(directory)
    had_volumes = bool(shutil.which("docker")) and docker.remove_volumes(directory, keep)
    return is_there or had_volumes


def act(params):
    """Do the action; (changed, further results). Raises Failed."""
    action, directory, services = params["action"], params["directory"], params["services"]
    if action == "remove":
        return remove(directory, params["keep"], params["stop_wait_s"]), {}
    with unit.alone(directory, params["stop_wait_s"] + params["ready_wait_s"]):
        if action == "start":
            unit.place(directory)
            docker.bring_up(directory, services, params["ready_wait_s"])
        elif action == "restore":
            return True, {"is_restored": restore(directory, services, params)}
        elif action == "confirm":
            unit.confirm(directory, params["entry"])
        elif action == "note":
            unit.note(directory, params["entry"])
    return True, {}


def main():
    actions = ["start", "restore", "confirm", "note", "remove"]
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "required": True, "choices": actions},
            "directory": {"type": "path", "required": True},
            "services": {"type": "list", "elements": "str", "default": []},
            "stop_wait_s": {"type": "int", "default": 75},
            "ready_wait_s": {"type": "int", "default": 1800},
            "entry": {"type": "dict", "default": {}},
            "keep": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=os.path.isdir(module.params["directory"]) or module.params["action"] != "remove")
    begun = time.monotonic()
    try:
        changed, results = act(module.params)
    except (docker.Failed, OSError) as error:
        log = docker.log_end(module.params["directory"]) if module.params["action"] in ("start", "restore") else []
        module.fail_json(msg=str(error), log=log, seconds=round(time.monotonic() - begun, 2))
    module.exit_json(changed=changed, seconds=round(time.monotonic() - begun, 2), **results)


if __name__ == "__main__":
    main()
