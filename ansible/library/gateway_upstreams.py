#!/usr/bin/python
"""The list of servers that a gateway passes requests to: who is in it, and who is drained."""

DOCUMENTATION = r"""
module: gateway_upstreams
short_description: Change a gateway's list of servers, and reload the gateway without dropping a stream
description:
  - The file holds each server with its name, so that every change touches only its own lines.
  - Each line names its worker's model, as that worker tells it, so that the gateway routes by it.
  - If nginx refuses a list, the old one is put back.
  - A drain leaves a guard on the host. It outlives the controller, and ends the drain if nobody else does in time.
options:
  directory: {type: path, required: true, description: folder of the gateway's unit}
  folder: {type: path, required: true, description: folder of the list}
  members: {type: list, elements: str, default: [], description: 'names that may stay in the list; empty is all'}
  join: {type: dict, default: {}, description: 'names with lists of host:port, to receive requests'}
  drain: {type: dict, default: {}, description: 'names with lists of host:port, to receive no new requests; of one that is listed its lines stay'}
  lift: {type: list, elements: str, default: [], description: 'names that receive requests again, with the lines that they have'}
  leave: {type: list, elements: str, default: [], description: names to remove}
  token: {type: str, default: '', description: name of this drain}
  guard_s: {type: int, default: 0, description: 'after how long the guard ends the drain; 0 is no guard'}
author: lingbi
"""
RETURN = r"""
servers: {type: dict, returned: always, description: the list}
at: {type: float, returned: always, description: 'when the gateway took the list, in seconds since the epoch'}
"""

import os
import syslog
import time

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_server as server
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lingbi_upstreams import FILE, named, parse, render, unnamed

POLL_S = 2
LOCK_WAIT_S = 60
RELOAD = ("python3", "-m", "lingbi_gateway", "reload")
STARTS_S = 10  # a gateway that has just started may not be able to reload yet


def change(servers, params):
    """The list after a change; pure. What a server that joins has for models is not known yet."""
    members = params["members"] or list(servers)
    kept = {name: known for name, known in servers.items() if name in members and name not in params["leave"]}
    token = {"token": params["token"]}
    drained = {name: kept.get(name, listed(ends)) | token for name, ends in params["drain"].items()}
    lifted = {name: kept[name] | {"token": None} for name in params["lift"] if name in kept}
    return kept | lifted | {name: listed(ends) for name, ends in params["join"].items()} | drained


def listed(endpoints):
    """A server that gets requests at host:port of each worker."""
    return {"endpoints": list(endpoints), "models": {}, "token": None}


def take(directory, path, text, old):
    """Write the list and reload the gateway; if it refuses the list, put the old one back. Raises Failed."""
    unit.write_atomically(path, text, 0o644)
    deadline = time.monotonic() + STARTS_S
    while True:
        gateway = docker.containers(directory).get("gateway")
        if not docker.is_running(gateway):
            return  # it will read the list when it starts
        done = docker.run("docker", "exec", gateway["id"], *RELOAD)
        if done.returncode == 0:
            return
        if gateway["health"] != "starting" or time.monotonic() > deadline:
            unit.write_atomically(path, old or render({}), 0o644)
            raise docker.Failed(
                f"the gateway refused its list of servers: {(done.stderr or done.stdout).strip()[-400:]}"
            )
        time.sleep(unit.POLL_S)


def update(module):
    """Change the list under its lock, since several hosts may roll at once. Raises Failed or ValueError."""
    folder = module.params["folder"]
    if module.check_mode:
        return update_alone(module, os.path.join(folder, FILE))
    os.makedirs(folder, mode=0o755, exist_ok=True)
    with unit.lock_of(os.path.join(folder, ".lock"), LOCK_WAIT_S):
        return update_alone(module, os.path.join(folder, FILE))


def read(path):
    """The text of the list; empty if there is none yet."""
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()


def update_alone(module, path):
    """Change the list, whose lock the caller holds; the module's result. Raises Failed or ValueError."""
    old, joined = read(path), list(module.params["join"])
    servers = change(parse(old), module.params)
    servers = named(servers, server.models(unnamed(servers, joined)), joined)
    text = render(servers)
    if text != old and not module.check_mode:
        take(module.params["directory"], path, text, old)
    return {"changed": text != old, "servers": servers, "at": time.time()}


def begin_guard(module):
    """Leave a process behind that guards the drain."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)  # the guard has no parent now
    try:
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # or the controller would wait until they are closed
            os.dup2(nothing, stream)
        guard(module)
    finally:
        os._exit(0)


def guard(module):
    """End the drain with the token if it still stands after guard_s, because its controller is gone; whether it did."""
    path, token = os.path.join(module.params["folder"], FILE), module.params["token"]
    deadline = time.monotonic() + module.params["guard_s"]
    while drained := find(path, token):
        if time.monotonic() > deadline and lift(module, drained):
            return True
        time.sleep(POLL_S)
    return False


def lift(module, drained):
    """End the drain; whether that worked. An error goes to the host's log."""
    module.params.update(lift=drained, join={}, drain={}, members=[], leave=[])
    try:
        update(module)
    except (docker.Failed, OSError) as error:
        syslog.syslog(syslog.LOG_ERR, f"lingbi: the drain of {', '.join(drained)} cannot be ended yet: {error}")
        return False
    syslog.syslog(
        syslog.LOG_WARNING, f"lingbi: the drain of {', '.join(drained)} was ended, because its rollout is gone"
    )
    return True


def find(path, token):
    """Names of the servers drained with a token."""
    return [name for name, known in parse(read(path)).items() if known["token"] == token]


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "folder": {"type": "path", "required": True},
            "members": {"type": "list", "elements": "str", "default": []},
            "join": {"type": "dict", "default": {}},
            "drain": {"type": "dict", "default": {}},
            "lift": {"type": "list", "elements": "str", "default": []},
            "leave": {"type": "list", "elements": "str", "default": []},
            "token": {"type": "str", "default": ""},
            "guard_s": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        result = update(module)
    except (docker.Failed, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    if module.params["drain"] and module.params["guard_s"] and not module.check_mode:
        begin_guard(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
