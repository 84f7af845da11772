#!/usr/bin/python
"""Replaces a gateway that serves without losing a request.

A helper of the new version starts beside the old gateway, and new connections are turned to it. The
old one ends when its last answer has; the new one takes its place and port; connections come to it
again, and the helper ends when its last answer has. Connections that exist are never turned: the
kernel remembers where each goes.
"""

DOCUMENTATION = r"""
module: gateway_swap
short_description: Replace a gateway without losing a request
options:
  directory: {type: path, required: true, description: folder of the unit}
  port: {type: int, required: true, description: port of the gateway}
  ready_wait_s: {type: int, required: true, description: longest wait for healthy containers}
  drain_wait_s: {type: int, required: true, description: longest wait for running answers}
author: lingbi
"""
RETURN = r"""
seconds: {type: float, returned: always, description: how long it took}
log: {type: list, returned: when it failed, description: the last lines of the containers}
"""

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402

from ansible.module_utils import lingbi_unit as unit  # noqa: E402
from ansible.module_utils.basic import AnsibleModule  # noqa: E402

HELPER = "lingbi-gateway-handover"
SERVICES = ("gateway", "ui")
POLL_S = 0.2


def run(*command, timeout_s=60):
    """A command's output. Raises Failed with its words."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise unit.Failed(f"{' '.join(command[:3])}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def rules(port, address):
    """iptables' arguments that turn new connections to the helper, for other machines and for this one."""
    match = ["-p", "tcp", "--dport", str(port), "-m", "addrtype", "--dst-type", "LOCAL"]
    target = ["-m", "comment", "--comment", HELPER, "-j", "DNAT", "--to-destination", f"{address}:{port}"]
    return [[chain, *match, *target] for chain in ("PREROUTING", "OUTPUT")]


def turn_to(port, address):
    for rule in rules(port, address):
        run("iptables", "--wait", "-t", "nat", "-I", rule[0], "1", *rule[1:])


def turn_back():
    """Take away every rule of a handover, of one that was broken off too."""
    for line in run("iptables-save", "-t", "nat").splitlines():
        if HELPER in line and line.startswith("-A "):
            run("iptables", "--wait", "-t", "nat", "-D", *line.replace('"', "").split()[1:])


def start_helper(directory, port, wait_s):
    """Start the new version beside the old one; its address in the network with a way out."""
    begin = (
        "run",
        "--detach",
        "--no-deps",
        "--use-aliases",
        "--name",
        HELPER,
        "--publish",
        f"127.0.0.1:0:{port}",
        "gateway",
    )
    done = unit.compose(directory, *begin, folder=unit.NEXT, timeout_s=wait_s)
    if done.returncode:
        raise unit.Failed(f"the new gateway does not start: {done.stderr.strip()[-300:]}")
    deadline = time.monotonic() + wait_s
    while (state := described())["State"]["Health"]["Status"] != "healthy":
        if not state["State"]["Running"] or time.monotonic() > deadline:
            words = subprocess.run(["docker", "logs", "--tail", "5", HELPER], capture_output=True, text=True)
            raise unit.Failed(f"the new gateway does not get healthy: {(words.stdout + words.stderr).strip()[-600:]}")
        time.sleep(POLL_S)
    networks = state["NetworkSettings"]["Networks"]
    return next(network["IPAddress"] for name, network in networks.items() if name.endswith("_edge"))


def described():
    return json.loads(run("docker", "inspect", HELPER))[0]


def end_helper(wait_s):
    """Turn connections back and let the helper finish what it answers."""
    turn_back()
    if subprocess.run(["docker", "inspect", HELPER], capture_output=True).returncode == 0:
        subprocess.run(
            ["docker", "stop", "--time", str(wait_s), HELPER], capture_output=True, timeout=wait_s + unit.MARGIN_S
        )
        run("docker", "rm", "--force", "--volumes", HELPER)


def swap(directory, port, ready_wait_s, drain_wait_s):
    """Replace the gateway; where the new one fails, have the old one back before connections are turned back."""
    end_helper(drain_wait_s)
    if not unit.is_well(unit.containers(directory).get("gateway")):
        unit.place(directory)
        return unit.bring_up(directory, SERVICES, ready_wait_s, no_deps=True)
    try:
        turn_to(port, start_helper(directory, port, ready_wait_s))
        unit.halt(directory, ["gateway"], drain_wait_s)
        unit.place(directory)
        unit.bring_up(directory, SERVICES, ready_wait_s, no_deps=True)
    except (unit.Failed, subprocess.TimeoutExpired):
        unit.put_back(directory)
        unit.bring_up(directory, SERVICES, ready_wait_s, no_deps=True)
        raise
    finally:
        end_helper(drain_wait_s)


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "port": {"type": "int", "required": True},
            "ready_wait_s": {"type": "int", "required": True},
            "drain_wait_s": {"type": "int", "required": True},
        },
    )
    begun, directory = time.monotonic(), module.params["directory"]
    try:
        swap(**module.params)
    except (unit.Failed, OSError, subprocess.TimeoutExpired) as error:
        log = unit.log_end(directory) if os.path.isdir(os.path.join(directory, unit.LIVE)) else []
        module.fail_json(msg=str(error), log=log)
    module.exit_json(changed=True, seconds=round(time.monotonic() - begun, 2))


if __name__ == "__main__":
    main()
