#!/usr/bin/python
"""Stops, starts, restores and records a unit. Each action ends within its bound."""

DOCUMENTATION = r"""
module: unit_run
short_description: Stop, start or restore a unit, or record what came of it
options:
  action: {type: str, required: true, choices: [stop, start, restore, confirm, note, remove], description: what to do}
  directory: {type: path, required: true, description: folder of the unit}
  services: {type: list, elements: str, default: [], description: services of the unit}
  stop_wait_s: {type: int, default: 75, description: longest wait for a container's end}
  ready_wait_s: {type: int, default: 1800, description: longest wait for healthy containers}
  gpus: {type: list, elements: str, default: [], description: GPUs whose memory must be free after a stop}
  gpu_wait_s: {type: int, default: 60, description: longest wait for that}
  no_deps: {type: bool, default: false, description: whether only the named services start, without what they depend on}
  entry: {type: dict, default: {}, description: what to record}
  volumes: {type: bool, default: false, description: whether remove takes the volumes too}
author: lingbi
"""
RETURN = r"""
seconds: {type: float, returned: always, description: how long the action took}
log: {type: list, returned: when a start failed, description: the last lines of the failing containers}
"""

import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402

from ansible.module_utils import lingbi_unit as unit  # noqa: E402
from ansible.module_utils.basic import AnsibleModule  # noqa: E402

POLL_S = 0.3


def stop(directory, services, params):
    """Stop the services and wait until their GPUs hold nothing more."""
    unit.halt(directory, services, params["stop_wait_s"])
    wait_for_memory(params["gpus"], params["gpu_wait_s"])


def wait_for_memory(gpus, wait_s):
    """Wait until no process computes on the GPUs."""
    deadline = time.monotonic() + wait_s
    while gpus:
        left = computing(gpus)
        if not left:
            return
        if time.monotonic() > deadline:
            raise unit.Failed(
                f"{wait_s} s after the stop the GPU(s) {', '.join(gpus)} are still used by: {'; '.join(left)}"
            )
        time.sleep(POLL_S)


def computing(gpus):
    """Processes on the GPUs, as nvidia-smi tells them."""
    chosen = [] if gpus == ["all"] else ["-i", ",".join(gpus)]
    command = ["nvidia-smi", *chosen, "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise unit.Failed(f"nvidia-smi failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def restore(directory, services, params):
    """Put what ran before back and start it; where there was nothing, leave the unit stopped."""
    if not unit.put_back(directory):
        unit.compose(directory, "down", timeout_s=params["stop_wait_s"] + unit.MARGIN_S)
        return False
    unit.bring_up(directory, services, params["ready_wait_s"], params["no_deps"])
    return True


def confirm(directory, entry):
    """Remember what runs as proven."""
    running = entry | {"files": unit.digests(os.path.join(directory, unit.LIVE))}
    unit.write_atomically(os.path.join(directory, unit.RUNNING), unit.json.dumps(running, indent=1) + "\n")


def remove(directory, with_volumes):
    """Take the unit off the host; whether there was one."""
    if not os.path.isdir(directory):
        return False
    if os.path.isdir(os.path.join(directory, unit.LIVE)):
        done = unit.compose(directory, "down", "--remove-orphans", *(["--volumes"] if with_volumes else []))
        if done.returncode:
            raise unit.Failed(f"docker compose down in {directory}: {done.stderr.strip()[-300:]}")
    shutil.rmtree(directory)
    return True


def act(params):
    """Do the action; (changed, further results)."""
    action, directory, services = params["action"], params["directory"], params["services"]
    if action == "stop":
        stop(directory, services, params)
    elif action == "start":
        unit.place(directory)
        unit.bring_up(directory, services, params["ready_wait_s"], params["no_deps"])
    elif action == "restore":
        return True, {"is_restored": restore(directory, services, params)}
    elif action == "confirm":
        confirm(directory, params["entry"])
    elif action == "remove":
        return remove(directory, params["volumes"]), {}
    if action in ("confirm", "note"):
        unit.note(directory, params["entry"])
    return True, {}


def main():
    actions = ["stop", "start", "restore", "confirm", "note", "remove"]
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "required": True, "choices": actions},
            "directory": {"type": "path", "required": True},
            "services": {"type": "list", "elements": "str", "default": []},
            "stop_wait_s": {"type": "int", "default": 75},
            "ready_wait_s": {"type": "int", "default": 1800},
            "gpus": {"type": "list", "elements": "str", "default": []},
            "gpu_wait_s": {"type": "int", "default": 60},
            "no_deps": {"type": "bool", "default": False},
            "entry": {"type": "dict", "default": {}},
            "volumes": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=os.path.isdir(module.params["directory"]) or module.params["action"] != "remove")
    begun = time.monotonic()
    try:
        changed, results = act(module.params)
    except (unit.Failed, OSError, subprocess.TimeoutExpired) as error:
        log = unit.log_end(module.params["directory"]) if module.params["action"] in ("start", "restore") else []
        module.fail_json(msg=str(error), log=log, seconds=round(time.monotonic() - begun, 2))
    module.exit_json(changed=changed, seconds=round(time.monotonic() - begun, 2), **results)


if __name__ == "__main__":
    main()
