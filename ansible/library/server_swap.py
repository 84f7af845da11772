#!/usr/bin/python
"""Replaces a drained model server: waits for its last answers, stops it, starts the new version and tests it.

It does all of that in one go on the host, because any time in between is time in which the host serves nobody.
"""

DOCUMENTATION = r"""
module: server_swap
short_description: Stop a drained model server, start what is staged, and test it
description:
  - The steps are stop (once the server is idle), start (start what is staged, test it and record it as proven) and
    return (stop what failed, start what was last proven and test that).
options:
  directory: {type: path, required: true, description: folder of the unit}
  steps: {type: list, elements: str, required: true, description: 'what to do, in this order: stop, start, return'}
  gpus: {type: bool, default: false, description: whether the server uses GPUs}
  drain_wait_s: {type: int, required: true, description: longest wait for running answers}
  stop_wait_s: {type: int, required: true, description: 'longest wait for the container to stop'}
  gpu_wait_s: {type: int, required: true, description: 'longest wait for the server''s own processes to leave the GPUs'}
  ready_wait_s: {type: int, required: true, description: longest wait until the server is ready}
  smoke_wait_s: {type: int, required: true, description: longest wait for the answers after that}
  entry: {type: dict, default: {}, description: 'what to record as proven, with the seconds of an earlier stop'}
author: lingbi
"""
RETURN = r"""
was_stopped: {type: bool, returned: always, description: whether the running server was touched}
recorded: {type: dict, returned: after start, description: what stands in the record now}
endpoints: {type: list, returned: after start and return, description: 'host:port of each worker that runs now'}
is_restored: {type: bool, returned: after return, description: whether there was a version to go back to}
seconds: {type: dict, returned: always, description: 'how long drain, stop, start and smoke took'}
log: {type: list, returned: when a start failed, description: the last lines of the containers}
"""

import contextlib
import os
import time

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_server as server
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule

SERVICE = "server"
WAITS = ("drain_wait_s", "stop_wait_s", "gpu_wait_s", "ready_wait_s", "smoke_wait_s")
FAILED_STOP_S = 10  # a failed server has no answers to finish


def stop(params, done):
    """Stop the server once it has no running answers, and wait until its processes have left the GPUs."""
    done["seconds"]["drain"] = server.wait_until_idle(workers(params["directory"]), params["drain_wait_s"])
    done["was_stopped"] = True
    begun = time.monotonic()
    left = end(params, params["stop_wait_s"])
    if left:
        raise docker.Failed(
            f"the server's own processes still use a GPU {params['gpu_wait_s']} s after the stop (lingbi_gpu_wait_s): "
            + "; ".join(left)
        )
    done["seconds"]["stop"] = round(time.monotonic() - begun, 2)


def workers(directory):
    """host:port of each worker of what is live; none before the first start. Another version may have more of them."""
    file = os.path.join(directory, docker.LIVE, ".env")
    if not os.path.exists(file):
        return []
    with open(file) as text:
        return server.endpoints(text.read())


def end(params, stop_wait_s):
    """Stop the container; lines of nvidia-smi for those of its processes that still use a GPU afterwards."""
    container = docker.containers(params["directory"]).get(SERVICE)
    numbers = server.processes(container["id"]) if params["gpus"] and docker.is_running(container) else set()
    docker.halt(params["directory"], [SERVICE], stop_wait_s)
    return server.wait_until_gone(numbers, params["gpu_wait_s"])


def start(params, done):
    """Start what is staged, test it, and record it as proven: here, so that the record is right if the controller is gone."""
    done["was_stopped"] = True
    unit.place(params["directory"])
    begin_and_ask(params, done)
    seconds = done["seconds"] | params["entry"].get("seconds", {})
    done["recorded"] = params["entry"] | {"result": "rolled", "seconds": seconds}
    unit.confirm(params["directory"], done["recorded"])


def begin_and_ask(params, done):
    """Start the server and test it; the questions begin together with the start. Raises Failed."""
    begun = time.monotonic()
    arguments = ("up", "--detach", "--no-build", "--pull", "never", "--no-deps", SERVICE)
    started = docker.compose(params["directory"], *arguments, timeout_s=docker.COMMAND_S + docker.MARGIN_S)
    if started.returncode:
        raise docker.Failed(f"the container did not start: {started.stderr.strip()[-300:]}")
    container = docker.containers(params["directory"])[SERVICE]["id"]
    done["endpoints"] = workers(params["directory"])
    ports = [endpoint.rpartition(":")[2] for endpoint in done["endpoints"]]
    smoke = server.ask(container, ports, params["ready_wait_s"], params["smoke_wait_s"])
    done["seconds"]["smoke"] = round(smoke, 2)
    done["seconds"]["start"] = round(time.monotonic() - begun - smoke, 2)


def give_back(params, done):
    """Stop what failed and start what was last proven; if nothing was, leave the unit stopped.

    A stop that fails does not keep the old version from being started.
    """
    with contextlib.suppress(docker.Failed):
        end(params, FAILED_STOP_S)
    done["is_restored"] = unit.put_back(params["directory"])
    if done["is_restored"]:
        begin_and_ask(params, done)
    else:
        docker.take_down(params["directory"], timeout_s=params["stop_wait_s"] + docker.MARGIN_S)


STEPS = {"stop": stop, "start": start, "return": give_back}


def main():
    whole = {"type": "int", "required": True}
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "steps": {"type": "list", "elements": "str", "required": True, "choices": list(STEPS)},
            "gpus": {"type": "bool", "default": False},
            "entry": {"type": "dict", "default": {}},
        }
        | {name: whole for name in WAITS},
        supports_check_mode=True,
    )
    params, done = module.params, {"was_stopped": False, "seconds": {}}
    if module.check_mode:
        module.exit_json(changed=True, **done)
    try:
        with unit.alone(params["directory"], sum(params[name] for name in WAITS)):
            for step in params["steps"]:
                STEPS[step](params, done)
    except (docker.Failed, OSError, ValueError) as error:
        module.fail_json(msg=str(error), log=docker.log_end(params["directory"]) if done["was_stopped"] else [], **done)
    module.exit_json(changed=True, **done)


if __name__ == "__main__":
    main()
